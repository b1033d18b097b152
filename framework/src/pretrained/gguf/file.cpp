#include "pretrained/gguf/file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "peft/base/error.h"
#include "pretrained/gguf/reader.h"
#include "pretrained/gguf/types.h"

namespace peft {

namespace {

using nlohmann::json;

constexpr uint64_t max_tensors = 100'000, max_pairs = 1'000'000;
/// Of all arrays of a file together: in memory an element takes many times its size in the file.
constexpr uint64_t max_array_elements = uint64_t{1} << 24;
constexpr uint64_t max_key_bytes = 65'535, max_name_bytes = 64;  // the specification's limits
constexpr uint64_t max_dimensions = 4;
constexpr uint32_t default_alignment = 32, max_alignment = 1 << 20;

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

uint64_t padded(uint64_t size, uint64_t alignment) { return (size + alignment - 1) / alignment * alignment; }

/// A tensor's data as its entry announces it.
struct Announced {
  GgufTensor tensor;
  uint64_t offset;
};

class Parser {
 public:
  explicit Parser(const std::shared_ptr<const MappedFile>& file) : file_(file), in_(file->bytes(), file->path()) {}

  GgufFile parse() {
    read_version();
    const auto tensors = count("tensors", max_tensors), pairs = count("key/value pairs", max_pairs);
    GgufFile out{file_, json::object(), {}, 0};
    for (uint64_t i = 0; i < pairs; ++i) read_pair(out.metadata);
    const uint64_t alignment = read_alignment(out.metadata);
    std::vector<Announced> announced;
    for (uint64_t i = 0; i < tensors; ++i) announced.push_back(read_tensor(i, alignment));
    out.header_bytes = in_.position();
    place(announced, alignment);
    for (Announced& entry : announced) out.tensors.push_back(std::move(entry.tensor));
    return out;
  }

 private:
  void read_version() {
    const std::byte* magic = in_.take(4, "the magic");
    const auto version = in_.number<uint32_t>("the version");
    const bool swapped = (version & 0xFFFF) == 0 && version != 0;
    if (std::memcmp(magic, "FUGG", 4) == 0 || (std::memcmp(magic, "GGUF", 4) == 0 && swapped))
      in_.fail("a big-endian GGUF file; only little-endian ones are implemented");
    if (std::memcmp(magic, "GGUF", 4) != 0) in_.fail("not a GGUF file: it does not begin with 'GGUF'");
    if (version != 2 && version != 3)
      in_.fail("GGUF version " + std::to_string(version) + " is not implemented (2 and 3 are)");
  }

  uint64_t count(const char* what, uint64_t limit) {
    const auto count = in_.number<uint64_t>(std::string("the number of ") + what);
    if (count > limit)
      in_.fail(std::to_string(count) + " " + what + " announced; at most " + std::to_string(limit) + " are accepted");
    return count;
  }

  void read_pair(json& metadata) {
    const std::string key = in_.text("a key of the metadata");
    if (key.empty() || key.size() > max_key_bytes) in_.fail("a key of " + std::to_string(key.size()) + " bytes");
    const std::string what = "the value of '" + printable(key) + "'";
    const auto type = in_.number<uint32_t>(what);
    if (!metadata.emplace(key, type == array ? read_array(what) : read_value(type, what)).second)
      in_.fail("the key '" + printable(key) + "' stands twice");
  }

  json read_array(const std::string& what) {
    const auto type = in_.number<uint32_t>(what);
    const auto length = in_.number<uint64_t>(what);
    if (type == array) in_.fail(what + " is an array of arrays, which is not implemented");
    elements_ += std::min(length, max_array_elements + 1);
    if (elements_ > max_array_elements)
      in_.fail(what + " has " + std::to_string(length) + " elements; all arrays together may have " +
               std::to_string(max_array_elements));
    json::array_t values;
    for (uint64_t i = 0; i < length; ++i) values.push_back(read_value(type, what));
    return values;
  }

  json read_value(uint32_t type, const std::string& what) {
    switch (type) {
      case u8:
        return in_.number<uint8_t>(what);
      case i8:
        return in_.number<int8_t>(what);
      case u16:
        return in_.number<uint16_t>(what);
      case i16:
        return in_.number<int16_t>(what);
      case u32:
        return in_.number<uint32_t>(what);
      case i32:
        return in_.number<int32_t>(what);
      case u64:
        return in_.number<uint64_t>(what);
      case i64:
        return in_.number<int64_t>(what);
      case f32:
        return in_.number<float>(what);
      case f64:
        return in_.number<double>(what);
      case string:
        return in_.text(what);
      case boolean: {
        const auto value = in_.number<uint8_t>(what);
        if (value > 1) in_.fail(what + " is neither true nor false, but " + std::to_string(value));
        return value == 1;
      }
      default:
        in_.fail(what + " has the unknown type " + std::to_string(type));
    }
  }

  uint64_t read_alignment(const json& metadata) const {
    const auto found = metadata.find("general.alignment");
    if (found == metadata.end()) return default_alignment;
    const uint64_t alignment = found->is_number_unsigned() ? found->get<uint64_t>() : 0;
    if (!std::has_single_bit(alignment) || alignment > max_alignment)
      in_.fail("'general.alignment' must be a power of two up to " + std::to_string(max_alignment));
    return alignment;
  }

  Announced read_tensor(uint64_t index, uint64_t alignment) {
    Announced entry{};
    GgufTensor& tensor = entry.tensor;
    tensor.name = in_.text("the name of tensor " + std::to_string(index));
    const std::string what = "tensor '" + printable(tensor.name) + "'";
    if (tensor.name.empty() || tensor.name.size() > max_name_bytes)
      in_.fail("the name of tensor " + std::to_string(index) + " has " + std::to_string(tensor.name.size()) +
               " bytes, not 1 to " + std::to_string(max_name_bytes));
    if (!names_.insert(tensor.name).second) in_.fail(what + " stands twice");
    const uint64_t elements = read_shape(tensor, what);
    const auto number = in_.number<uint32_t>(what);
    const GgufType* type = find_gguf_type(number);
    if (type == nullptr)
      in_.fail(what + " has the type " + gguf_type_name(number) + " (" + std::to_string(number) +
               "), which is not implemented");
    if (tensor.shape.back() % type->block_elements != 0)
      in_.fail(what + ": a row of " + std::to_string(tensor.shape.back()) + " elements is not whole blocks of " +
               type->name);
    tensor.type = type->type;
    tensor.size = elements / type->block_elements * type->block_bytes;
    entry.offset = in_.number<uint64_t>(what);
    if (entry.offset % alignment != 0)
      in_.fail(what + ": its offset " + std::to_string(entry.offset) + " is not a multiple of the alignment " +
               std::to_string(alignment));
    return entry;
  }

  /// Reads the dimensions; returns their product, which is so bounded that sizes computed from it cannot overflow.
  uint64_t read_shape(GgufTensor& tensor, const std::string& what) {
    const auto dimensions = in_.number<uint32_t>(what);
    if (dimensions == 0 || dimensions > max_dimensions)
      in_.fail(what + " has " + std::to_string(dimensions) + " dimensions, not 1 to " + std::to_string(max_dimensions));
    // no type of ggml takes less than a bit an element
    const uint64_t limit = 8 * static_cast<uint64_t>(file_->bytes().size());
    uint64_t elements = 1;
    for (uint32_t i = 0; i < dimensions; ++i) {
      const auto size = in_.number<uint64_t>(what);
      if (size == 0 || size > limit / elements)
        in_.fail(what + ": dimension " + std::to_string(i) + " of size " + std::to_string(size) +
                 (size == 0 ? "" : " makes it larger than the file"));
      elements *= size;
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    return elements;
  }

  /// Points every tensor at its data, after all the entries are read and the data's beginning is known.
  void place(std::vector<Announced>& tensors, uint64_t alignment) const {
    const uint64_t size = file_->bytes().size(), begin = padded(in_.position(), alignment);
    for (Announced& entry : tensors) {
      GgufTensor& tensor = entry.tensor;
      if (begin > size || entry.offset > size - begin || tensor.size > size - begin - entry.offset)
        in_.fail("cut off or corrupt: tensor '" + printable(tensor.name) + "' of " + std::to_string(tensor.size) +
                 " bytes at offset " + std::to_string(entry.offset) + " of the data, which begins at byte " +
                 std::to_string(begin) + ", does not fit in the file of " + std::to_string(size) + " bytes");
      tensor.data = file_->bytes().data() + begin + entry.offset;
    }
    check_tiling(tensors, alignment, begin);
  }

  /// As llama.cpp's reader: one tensor behind the other, with no more between them than the alignment asks for.
  void check_tiling(const std::vector<Announced>& tensors, uint64_t alignment, uint64_t begin) const {
    std::vector<const Announced*> ordered;
    for (const Announced& entry : tensors) ordered.push_back(&entry);
    std::sort(ordered.begin(), ordered.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
    uint64_t end = 0;
    for (const Announced* entry : ordered) {
      if (entry->offset != end)
        in_.fail("tensor '" + printable(entry->tensor.name) + "' " +
                 (entry->offset < end ? "overlaps the one before it" : "leaves a hole before it"));
      end = padded(entry->offset + entry->tensor.size, alignment);
    }
    if (const uint64_t size = file_->bytes().size(); size > begin + end)
      in_.fail(std::to_string(size - begin - end) + " bytes behind the last tensor");
  }

  std::shared_ptr<const MappedFile> file_;
  GgufReader in_;
  uint64_t elements_ = 0;
  std::unordered_set<std::string> names_;
};

}  // namespace

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](auto& tensor) { return tensor.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

GgufFile GgufFile::parse(const std::shared_ptr<const MappedFile>& file) { return Parser(file).parse(); }

}  // namespace peft
