#include "peft/files/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "files/atomic_file.h"
#include "files/mapped_file.h"
#include "peft/base/error.h"
#include "peft/files/json.h"

namespace peft {

SafetensorsFile::~SafetensorsFile() = default;

namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian; values are used unconverted");

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the safetensors library
constexpr std::size_t kMaxDimensions = 16;

struct TypeName {
  const char* name;
  StoredType type;
  uint64_t size;
};
constexpr TypeName kTypes[] = {{"F64", StoredType::f64, 8},   {"I64", StoredType::i64, 8},
                               {"F32", StoredType::f32, 4},   {"I32", StoredType::i32, 4},
                               {"BF16", StoredType::bf16, 2}, {"F16", StoredType::f16, 2},
                               {"I16", StoredType::i16, 2},   {"I8", StoredType::i8, 1},
                               {"U8", StoredType::u8, 1},     {"BOOL", StoredType::boolean, 1}};

const TypeName& type_name(StoredType type) {
  for (const TypeName& known : kTypes)
    if (known.type == type) return known;
  throw std::logic_error("safetensors has no quantized types");
}

class File final : public SafetensorsFile {
 public:
  explicit File(const std::string& path) : file_(MappedFile::open(path)), name_(printable_path(path)) { read(); }
  const std::string& path() const override { return file_->path(); }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }

 private:
  void read();
  void read_tensor(const std::string& key, const nlohmann::json& value);
  void read_metadata(const nlohmann::json& value);
  void check_tiling();
  [[noreturn]] void fail(const std::string& what) const { throw InputError(name_ + ": " + what); }

  std::shared_ptr<const MappedFile> file_;
  std::string name_;
  std::span<const std::byte> data_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

void File::read() {
  const std::span<const std::byte> bytes = file_->bytes();
  uint64_t length = 0;
  if (bytes.size() < sizeof length) fail("too short for a safetensors file");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kMaxHeader) fail("header of " + std::to_string(length) + " bytes, more than the format allows");
  if (length > bytes.size() - sizeof length) fail("truncated inside its header");
  const std::string text(reinterpret_cast<const char*>(bytes.data()) + sizeof length, length);
  if (text.empty() || text.front() != '{') fail("the header does not start with '{'");
  data_ = bytes.subspan(sizeof length + length);
  const nlohmann::json header = parse_json(text, name_ + ", header");
  for (const auto& [key, value] : header.items())
    key == "__metadata__" ? read_metadata(value) : read_tensor(key, value);
  check_tiling();
}

void File::read_metadata(const nlohmann::json& value) {
  if (!value.is_object()) fail("__metadata__ must be an object");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) fail("__metadata__: '" + printable(key) + "' must be a string");
    metadata_[key] = text.get<std::string>();
  }
}

/// Reads a non-negative integer that fits into int64_t.
bool read_size(const nlohmann::json& value, uint64_t& out) {
  if (!value.is_number_unsigned()) return false;
  out = value.get<uint64_t>();
  return out <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

void File::read_tensor(const std::string& key, const nlohmann::json& value) {
  const std::string where = "tensor '" + printable(key) + "': ";
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets"))
    fail(where + "must have exactly the keys dtype, shape and data_offsets");
  const nlohmann::json &dtype = value["dtype"], &shape = value["shape"], &range = value["data_offsets"];
  const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                 [&](const TypeName& known) { return dtype.is_string() && dtype == known.name; });
  if (type == std::end(kTypes)) fail(where + "unsupported dtype " + printable(dtype.dump()));
  if (!shape.is_array() || shape.size() > kMaxDimensions)
    fail(where + "shape must be a list of at most " + std::to_string(kMaxDimensions) + " sizes");

  StoredTensor tensor{key, type->type, {}, nullptr, 0};
  uint64_t size = type->size, extents = type->size, begin = 0, end = 0;
  for (const nlohmann::json& item : shape) {
    uint64_t extent = 0;
    if (!read_size(item, extent)) fail(where + "shape must be a list of sizes");
    // Zero sizes count as 1: the strides of a tensor without elements must not overflow, either.
    if (__builtin_mul_overflow(extents, std::max<uint64_t>(extent, 1), &extents) ||
        extents > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail(where + "its shape needs more than 2^63 bytes");
    size *= extent;
    tensor.shape.push_back(static_cast<int64_t>(extent));
  }
  if (!range.is_array() || range.size() != 2 || !read_size(range[0], begin) || !read_size(range[1], end) || begin > end)
    fail(where + "data_offsets must be [begin, end]");
  if (end > data_.size()) fail(where + "ends after the end of the file, which is truncated");
  if (end - begin != size)
    fail(where + "its shape needs " + std::to_string(size) + " bytes, its data_offsets span " +
         std::to_string(end - begin));
  tensor.data = data_.data() + begin;
  tensor.size = size;
  tensors_.push_back(std::move(tensor));
}

void File::check_tiling() {
  std::sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return a.data != b.data ? a.data < b.data : a.size < b.size;
  });
  const std::byte* end = data_.data();
  for (const StoredTensor& tensor : tensors_) {
    if (tensor.data != end)
      fail("tensor '" + printable(tensor.name) +
           "': " + (tensor.data < end ? "overlaps the previous tensor" : "there is a gap before it"));
    end += tensor.size;
  }
  if (end != data_.data() + data_.size()) fail("there are bytes after the last tensor");
}

template <class T>
T element(const StoredTensor& tensor, uint64_t index) {
  T value;
  std::memcpy(&value, tensor.data + index * sizeof(T), sizeof(T));
  return value;
}

float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 0x1f, mantissa = half & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: mantissa · 2^-24, exact in fp32
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  const uint32_t float_exponent = exponent == 31 ? 0xff : exponent + 112;
  return std::bit_cast<float>(sign | float_exponent << 23 | mantissa << 13);
}

}  // namespace

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  return std::make_shared<File>(path);
}

uint64_t element_size(StoredType type) {
  for (const TypeName& known : kTypes)
    if (known.type == type) return known.size;
  return 0;
}

void to_float(const StoredTensor& tensor, float* out) {
  const uint64_t size = element_size(tensor.type);
  const uint64_t count = size > 0 ? tensor.size / size : 0;
  if (size > 0 && count == 0) return;  // `out` may be null
  switch (tensor.type) {
    case StoredType::f32:
      std::memcpy(out, tensor.data, tensor.size);
      return;
    case StoredType::f64:
      for (uint64_t i = 0; i < count; ++i) out[i] = static_cast<float>(element<double>(tensor, i));
      return;
    case StoredType::f16:
      for (uint64_t i = 0; i < count; ++i) out[i] = half_to_float(element<uint16_t>(tensor, i));
      return;
    case StoredType::bf16:
      for (uint64_t i = 0; i < count; ++i) out[i] = std::bit_cast<float>(uint32_t{element<uint16_t>(tensor, i)} << 16);
      return;
    default:
      throw InputError("tensor '" + printable(tensor.name) + "' is not a floating-point tensor");
  }
}

uint64_t TensorInfo::bytes() const {
  uint64_t bytes = type_name(type).size;
  for (const int64_t size : shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

SafetensorsWriter::~SafetensorsWriter() = default;

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorInfo> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : tensors_(std::move(tensors)) {
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
    const uint64_t left = type_name(a.type).size, right = type_name(b.type).size;
    return left != right ? left > right : a.name < b.name;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorInfo& tensor : tensors_) {
    if (header.contains(tensor.name)) throw std::logic_error("two tensors named " + tensor.name);
    const uint64_t end = offset + tensor.bytes();
    header[tensor.name] = {
        {"dtype", type_name(tensor.type).name}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  file_ = std::make_unique<AtomicFile>(path);
  file_->write(&length, sizeof length);
  file_->write(text.data(), text.size());
}

void SafetensorsWriter::write(const void* data) {
  if (next_ == tensors_.size()) throw std::logic_error("more tensors written than declared");
  file_->write(data, tensors_[next_++].bytes());
}

void SafetensorsWriter::commit() {
  if (next_ != tensors_.size()) throw std::logic_error("'" + tensors_[next_].name + "' was not written");
  file_->commit();
}

}  // namespace peft
