#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"

namespace peft {

class AtomicFile;

/// A safetensors file, mapped. Opening checks the whole header: its length, JSON without a key twice, types, shapes
/// against byte ranges without overflow, and ranges that tile the data: no hole, no overlap, nothing behind.
class PEFT_API SafetensorsFile {
 public:
  /// Throws InputError naming the file and what is wrong.
  static std::shared_ptr<const SafetensorsFile> open(const std::string& path);
  virtual ~SafetensorsFile();
  virtual const std::string& path() const = 0;
  /// In the order of their bytes.
  virtual const std::vector<StoredTensor>& tensors() const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
};

/// Bytes of one element; 0 for a quantised type, which this format has not.
PEFT_API uint64_t element_size(StoredType type);
/// Elements as fp32, from f64, f32, f16 or bf16 that need not be aligned.
PEFT_API void to_float(const StoredTensor& tensor, float* out);

/// A tensor that a file is to hold.
struct TensorInfo {
  std::string name;
  StoredType type;
  std::vector<int64_t> shape;
  PEFT_API uint64_t bytes() const;  ///< by type and shape
};

/// Writes a file as the `safetensors` library lays it out (widest types first, then by name), a tensor at a time, whole
/// or not at all: nothing is there before commit().
class PEFT_API SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::vector<TensorInfo> tensors,
                    const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  /// In the order in which their bytes must come.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// The bytes of the next tensor: contiguous, little-endian.
  void write(const void* data);
  /// Throws std::logic_error before the last tensor is written.
  void commit();

 private:
  std::vector<TensorInfo> tensors_;
  std::unique_ptr<AtomicFile> file_;
  std::size_t next_ = 0;
};

}  // namespace peft
