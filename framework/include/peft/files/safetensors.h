#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"

namespace peft {

class AtomicFile;

/// A memory-mapped safetensors file. open() checks the entire header: its length, strict JSON, dtypes, shapes against
/// byte ranges, and that the ranges cover the data without gaps or overlaps.
class PEFT_API SafetensorsFile {
 public:
  /// Throws InputError if the file cannot be read or its header is invalid.
  static std::shared_ptr<const SafetensorsFile> open(const std::string& path);
  virtual ~SafetensorsFile();
  virtual const std::string& path() const = 0;
  /// In the order of their bytes.
  virtual const std::vector<StoredTensor>& tensors() const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
};

/// Bytes per element; 0 for the quantized types, which safetensors does not have.
PEFT_API uint64_t element_size(StoredType type);
/// Converts the elements of an f64, f32, f16 or bf16 tensor to fp32. `tensor.data` need not be aligned. Throws
/// InputError for other types.
PEFT_API void to_float(const StoredTensor& tensor, float* out);

/// Name, dtype and shape of a tensor to be written.
struct TensorInfo {
  std::string name;
  StoredType type;
  std::vector<int64_t> shape;
  PEFT_API uint64_t bytes() const;  ///< size in the file
};

/// Writes a file one tensor at a time, in the layout of the `safetensors` library: widest types first, then by name.
/// The file appears under its name on commit(). Throws ResourceError.
class PEFT_API SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::vector<TensorInfo> tensors,
                    const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  /// The tensors in the order in which they must be written.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Writes the next tensor: contiguous, little-endian.
  void write(const void* data);
  /// Throws std::logic_error if not all tensors are written.
  void commit();

 private:
  std::vector<TensorInfo> tensors_;
  std::unique_ptr<AtomicFile> file_;
  std::size_t next_ = 0;
};

}  // namespace peft
