#include "pretrained/gguf/writer.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "peft/base/error.h"
#include "pretrained/gguf/heads.h"
#include "pretrained/gguf/types.h"

namespace peft {

namespace {

constexpr uint64_t alignment = 32;

uint64_t padding(uint64_t size) { return (alignment - size % alignment) % alignment; }

/// Numbers of the format's value types.
template <class T>
constexpr uint32_t type_number = 0;
template <>
constexpr uint32_t type_number<uint32_t> = 4;
template <>
constexpr uint32_t type_number<int32_t> = 5;
template <>
constexpr uint32_t type_number<float> = 6;
template <>
constexpr uint32_t type_number<bool> = 7;
template <>
constexpr uint32_t type_number<std::string> = 8;
constexpr uint32_t array_number = 9;

/// Everything before the tensor data.
class Header {
 public:
  template <class T>
  void put(const T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      put<uint64_t>(value.size());
      bytes_ += value;
    } else {
      static_assert(std::is_arithmetic_v<T>);
      bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  template <class T>
  void put_value(const T& value) {
    put(type_number<T>);
    put(value);
  }
  template <class T>
  void put_value(const std::vector<T>& values) {
    put(array_number);
    put(type_number<T>);
    put<uint64_t>(values.size());
    for (const T& value : values) put(value);
  }
  std::string padded() && { return std::move(bytes_.append(padding(bytes_.size()), '\0')); }

 private:
  std::string bytes_ = "GGUF";
};

/// A tensor's rows in llama.cpp's order; stored in `buffer` if they had to be permuted.
const void* in_gguf_order(const void* data, const GgufTensorInfo& tensor, std::vector<std::byte>& buffer) {
  if (tensor.heads == 0) return data;
  const uint64_t bytes = gguf_bytes(tensor.type, tensor.shape);
  const int64_t rows = tensor.shape.front(), row_bytes = static_cast<int64_t>(bytes) / rows;
  buffer.resize(bytes);
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(buffer.data() + unpermuted_row(row, rows / tensor.heads) * row_bytes,
                static_cast<const std::byte*>(data) + row * row_bytes, static_cast<std::size_t>(row_bytes));
  return buffer.data();
}

}  // namespace

GgufWriter::GgufWriter(const std::string& path, const GgufPairs& pairs, std::vector<GgufTensorInfo> tensors)
    : tensors_(std::move(tensors)), file_(path) {
  Header header;
  header.put<uint32_t>(3);  // version
  header.put<uint64_t>(tensors_.size());
  header.put<uint64_t>(pairs.size());
  for (const auto& [key, value] : pairs) {
    header.put(key);
    if (const auto* number = std::get_if<float>(&value); number != nullptr && !std::isfinite(*number))
      throw InputError("'" + key + "' is not finite in fp32, in which a GGUF file holds it");
    std::visit([&](const auto& typed) { header.put_value(typed); }, value);
  }
  uint64_t offset = 0;
  for (const GgufTensorInfo& tensor : tensors_) {
    header.put(tensor.name);
    header.put<uint32_t>(static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) header.put<uint64_t>(*size);
    header.put(gguf_type(tensor.type).number);
    header.put(offset);
    const uint64_t size = gguf_bytes(tensor.type, tensor.shape);
    offset += size + padding(size);
  }
  const std::string bytes = std::move(header).padded();
  file_.write(bytes.data(), bytes.size());
}

void GgufWriter::write(const void* data) {
  const GgufTensorInfo& tensor = tensors_.at(next_++);
  const uint64_t size = gguf_bytes(tensor.type, tensor.shape);
  constexpr char zeros[alignment] = {};
  std::vector<std::byte> buffer;
  file_.write(in_gguf_order(data, tensor, buffer), size);
  file_.write(zeros, padding(size));
}

void GgufWriter::commit() {
  if (next_ != tensors_.size()) throw std::logic_error("not all tensors of the GGUF file were written");
  file_.commit();
}

}  // namespace peft
