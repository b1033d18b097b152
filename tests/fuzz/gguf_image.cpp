#include "gguf_image.h"

#include <cstring>

#include "pretrained/gguf/types.h"

namespace peft::fuzz {

namespace {

/// Size in bytes of a number of each type; 0 for strings, arrays and unknown types.
std::size_t width(uint32_t type) {
  constexpr std::size_t widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < std::size(widths) ? widths[type] : 0;
}

/// Reads until a value does not fit; all further values are empty.
class Reader {
 public:
  explicit Reader(const std::string& bytes) : bytes_(bytes) {}
  std::string take(uint64_t size) {
    if (size > bytes_.size() - at_) failed_ = true;
    if (failed_) return "";
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  template <class Number>
  Number number() {
    Number value{};
    const std::string bytes = take(sizeof value);
    if (!failed_) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  std::string text() { return take(number<uint64_t>()); }
  std::string value(uint32_t type) { return type == GgufImage::string_type ? text() : take(width(type)); }
  bool failed() const { return failed_; }
  std::string rest() const { return bytes_.substr(at_); }
  std::size_t at() const { return at_; }

 private:
  const std::string& bytes_;
  std::size_t at_ = 0;
  bool failed_ = false;
};

template <class Number>
void put(std::string& out, Number number) {
  out.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void put_text(std::string& out, const std::string& text) {
  put<uint64_t>(out, text.size());
  out += text;
}

void put_value(std::string& out, uint32_t type, const std::string& value) {
  if (type == GgufImage::string_type) return put_text(out, value);
  std::string number = value;
  number.resize(width(type));
  out += number;
}

std::size_t padded(std::size_t size) {
  return (size + GgufImage::alignment - 1) / GgufImage::alignment * GgufImage::alignment;
}

GgufImage::Pair read_pair(Reader& in) {
  GgufImage::Pair pair{in.text(), in.number<uint32_t>(), 0, {}};
  if (pair.type != GgufImage::array_type) {
    pair.values.push_back(in.value(pair.type));
    return pair;
  }
  pair.element_type = in.number<uint32_t>();
  const auto count = in.number<uint64_t>();
  for (uint64_t i = 0; i < count && i < 10'000 && !in.failed(); ++i) pair.values.push_back(in.value(pair.element_type));
  return pair;
}

GgufImage::Tensor read_tensor(Reader& in) {
  GgufImage::Tensor tensor;
  tensor.name = in.text();
  for (auto count = in.number<uint32_t>(); count > 0 && !in.failed(); --count)
    tensor.sizes.push_back(in.number<uint64_t>());
  tensor.type = in.number<uint32_t>();
  tensor.offset = in.number<uint64_t>();
  return tensor;
}

}  // namespace

std::optional<GgufImage> GgufImage::parse(const std::string& bytes) {
  Reader in(bytes);
  in.take(4);
  GgufImage image;
  image.version = in.number<uint32_t>();
  const auto tensors = in.number<uint64_t>(), pairs = in.number<uint64_t>();
  for (uint64_t i = 0; i < pairs && i < 10'000 && !in.failed(); ++i) image.pairs.push_back(read_pair(in));
  for (uint64_t i = 0; i < tensors && i < 10'000 && !in.failed(); ++i) image.tensors.push_back(read_tensor(in));
  in.take(padded(in.at()) - in.at());
  if (in.failed()) return std::nullopt;
  image.data = in.rest();
  return image;
}

std::string GgufImage::write(uint64_t more_pairs, uint64_t more_tensors) const {
  std::string out = "GGUF";
  put(out, version);
  put<uint64_t>(out, tensors.size() + more_tensors);
  put<uint64_t>(out, pairs.size() + more_pairs);
  for (const Pair& pair : pairs) {
    put_text(out, pair.key);
    put(out, pair.type);
    const bool array = pair.type == array_type;
    if (array) put(out, pair.element_type);
    if (array) put<uint64_t>(out, pair.values.size());
    for (const std::string& value : pair.values) put_value(out, array ? pair.element_type : pair.type, value);
  }
  for (const Tensor& tensor : tensors) {
    put_text(out, tensor.name);
    put(out, static_cast<uint32_t>(tensor.sizes.size()));
    for (const uint64_t size : tensor.sizes) put(out, size);
    put(out, tensor.type);
    put(out, tensor.offset);
  }
  out.resize(padded(out.size()));
  return out + data;
}

void GgufImage::lay_out() {
  std::size_t at = 0;
  for (Tensor& tensor : tensors) {
    const GgufType* type = find_gguf_type(tensor.type);
    uint64_t elements = 1;
    for (const uint64_t size : tensor.sizes) elements *= size < 4096 ? size : 1;
    tensor.offset = at;
    if (type != nullptr && elements < 1 << 16) at += elements / type->block_elements * type->block_bytes;
    at = padded(at);
  }
  data.resize(at);
}

}  // namespace peft::fuzz
