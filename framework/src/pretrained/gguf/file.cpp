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

constexpr uint64_t kMaxTensors = 100'000, kMaxPairs = 1'000'000;
/// Limit for all arrays of a file together, because an element takes many times its size in the file in memory.
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;
constexpr uint64_t kMaxKeyBytes = 65'535, kMaxNameBytes = 64;  // the specification's limits
constexpr uint64_t kMaxDimensions = 4;
constexpr uint32_t kDefaultAlignment = 32, kMaxAlignment = 1 << 20;

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

uint64_t padded(uint64_t size, uint64_t alignment) { return (size + alignment - 1) / alignment * alignment; }

/// An entry of the tensor list.
struct TensorEntry {
  GgufTensor tensor;
  uint64_t offset;  ///< from the start of the tensor data
};

class Parser {
 public:
  explicit Parser(const std::shared_ptr<const MappedFile>& file) : file_(file), in_(file->bytes(), file->path()) {}

  GgufFile parse() {
    read_version();
    const auto tensors = count("tensors", kMaxTensors), pairs = count("key/value pairs", kMaxPairs);
    GgufFile out{file_, json::object(), {}, 0};
    for (uint64_t i = 0; i < pairs; ++i) read_pair(out.metadata);
    const uint64_t alignment = read_alignment(out.metadata);
    std::vector<TensorEntry> entries;
    for (uint64_t i = 0; i < tensors; ++i) entries.push_back(read_tensor(i, alignment));
    out.header_bytes = in_.position();
    set_data(entries, alignment);
    for (TensorEntry& entry : entries) out.tensors.push_back(std::move(entry.tensor));
    return out;
  }

 private:
  void read_version() {
    const std::byte* magic = in_.take(4, "the magic");
    const auto version = in_.number<uint32_t>("the version");
    const bool swapped = (version & 0xFFFF) == 0 && version != 0;
    if (std::memcmp(magic, "FUGG", 4) == 0 || (std::memcmp(magic, "GGUF", 4) == 0 && swapped))
      in_.fail("big-endian GGUF files are not implemented; use a little-endian one");
    if (std::memcmp(magic, "GGUF", 4) != 0) in_.fail("not a GGUF file: it does not start with 'GGUF'");
    if (version != 2 && version != 3)
      in_.fail("GGUF version " + std::to_string(version) + " is not implemented; supported: 2, 3");
  }

  uint64_t count(const char* what, uint64_t limit) {
    const auto count = in_.number<uint64_t>(std::string("the number of ") + what);
    if (count > limit)
      in_.fail("the header declares " + std::to_string(count) + " " + what + "; the limit is " + std::to_string(limit));
    return count;
  }

  void read_pair(json& metadata) {
    const std::string key = in_.text("a key of the metadata");
    if (key.empty() || key.size() > kMaxKeyBytes)
      in_.fail("a key of " + std::to_string(key.size()) + " bytes; keys have 1 to " + std::to_string(kMaxKeyBytes));
    const std::string what = "the value of '" + printable(key) + "'";
    const auto type = in_.number<uint32_t>(what);
    if (!metadata.emplace(key, type == array ? read_array(what) : read_value(type, what)).second)
      in_.fail("the key '" + printable(key) + "' appears twice");
  }

  json read_array(const std::string& what) {
    const auto type = in_.number<uint32_t>(what);
    const auto length = in_.number<uint64_t>(what);
    if (type == array) in_.fail(what + " is an array of arrays, which is not implemented");
    elements_ += std::min(length, kMaxArrayElements + 1);
    if (elements_ > kMaxArrayElements)
      in_.fail(what + " has " + std::to_string(length) + " elements; the limit for all arrays together is " +
               std::to_string(kMaxArrayElements));
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
        if (value > 1) in_.fail(what + " must be 0 (false) or 1 (true), not " + std::to_string(value));
        return value == 1;
      }
      default:
        in_.fail(what + " has the unknown type " + std::to_string(type));
    }
  }

  uint64_t read_alignment(const json& metadata) const {
    const auto found = metadata.find("general.alignment");
    if (found == metadata.end()) return kDefaultAlignment;
    const uint64_t alignment = found->is_number_unsigned() ? found->get<uint64_t>() : 0;
    if (!std::has_single_bit(alignment) || alignment > kMaxAlignment)
      in_.fail("'general.alignment' must be a power of two up to " + std::to_string(kMaxAlignment));
    return alignment;
  }

  TensorEntry read_tensor(uint64_t index, uint64_t alignment) {
    TensorEntry entry{};
    GgufTensor& tensor = entry.tensor;
    tensor.name = in_.text("the name of tensor " + std::to_string(index));
    const std::string what = "tensor '" + printable(tensor.name) + "'";
    if (tensor.name.empty() || tensor.name.size() > kMaxNameBytes)
      in_.fail("the name of tensor " + std::to_string(index) + " has " + std::to_string(tensor.name.size()) +
               " bytes; names have 1 to " + std::to_string(kMaxNameBytes));
    if (!names_.insert(tensor.name).second) in_.fail(what + " appears twice");
    const uint64_t elements = read_shape(tensor, what);
    const auto number = in_.number<uint32_t>(what);
    const GgufType* type = find_gguf_type(number);
    if (type == nullptr)
      in_.fail(what + " has the type " + gguf_type_name(number) + " (" + std::to_string(number) +
               "), which is not implemented");
    if (tensor.shape.back() % type->block_elements != 0)
      in_.fail(what + ": the row length " + std::to_string(tensor.shape.back()) +
               " is not a multiple of the block size of " + type->name + ", " + std::to_string(type->block_elements));
    tensor.type = type->type;
    tensor.size = elements / type->block_elements * type->block_bytes;
    entry.offset = in_.number<uint64_t>(what);
    if (entry.offset % alignment != 0)
      in_.fail(what + ": its offset " + std::to_string(entry.offset) + " is not a multiple of the alignment " +
               std::to_string(alignment));
    return entry;
  }

  /// Reads the dimensions. Returns their product, which is limited so that sizes computed from it cannot overflow.
  uint64_t read_shape(GgufTensor& tensor, const std::string& what) {
    const auto dimensions = in_.number<uint32_t>(what);
    if (dimensions == 0 || dimensions > kMaxDimensions)
      in_.fail(what + " has " + std::to_string(dimensions) + " dimensions; the limit is " +
               std::to_string(kMaxDimensions));
    // All types of ggml take at least one bit per element.
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

  /// Sets each tensor's data. Call it after all entries are read, because the data starts after the last one.
  void set_data(std::vector<TensorEntry>& entries, uint64_t alignment) const {
    const uint64_t size = file_->bytes().size(), begin = padded(in_.position(), alignment);
    for (TensorEntry& entry : entries) {
      GgufTensor& tensor = entry.tensor;
      if (begin > size || entry.offset > size - begin || tensor.size > size - begin - entry.offset)
        in_.fail("truncated or corrupt: tensor '" + printable(tensor.name) + "' of " + std::to_string(tensor.size) +
                 " bytes at offset " + std::to_string(entry.offset) + " of the data, which starts at byte " +
                 std::to_string(begin) + ", does not fit in the file of " + std::to_string(size) + " bytes");
      tensor.data = file_->bytes().data() + begin + entry.offset;
    }
    check_tiling(entries, alignment, begin);
  }

  /// As in llama.cpp, tensors must follow each other without a gap other than the padding.
  void check_tiling(const std::vector<TensorEntry>& entries, uint64_t alignment, uint64_t begin) const {
    std::vector<const TensorEntry*> ordered;
    for (const TensorEntry& entry : entries) ordered.push_back(&entry);
    std::sort(ordered.begin(), ordered.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
    uint64_t end = 0;
    for (const TensorEntry* entry : ordered) {
      if (entry->offset != end)
        in_.fail("tensor '" + printable(entry->tensor.name) +
                 "': " + (entry->offset < end ? "overlaps the previous tensor" : "there is a gap before it"));
      end = padded(entry->offset + entry->tensor.size, alignment);
    }
    if (const uint64_t size = file_->bytes().size(); size > begin + end)
      in_.fail(std::to_string(size - begin - end) + " bytes after the last tensor");
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
