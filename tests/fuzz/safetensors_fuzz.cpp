// Checks that the tensors of an accepted safetensors file cover its data exactly: they are in the file, have the size
// that dtype and shape require, and leave no gap.
#include <cstring>

#include "bytes.h"
#include "json_tree.h"
#include "peft/files/safetensors.h"
#include "target.h"

namespace peft::fuzz {

namespace {

void check_tensor(const StoredTensor& tensor) {
  uint64_t size = element_size(tensor.type), elements = 1;
  expect(size > 0, "a type that is not in the format");
  for (const int64_t extent : tensor.shape) {
    expect(extent >= 0, "a negative size");
    expect(!__builtin_mul_overflow(elements, static_cast<uint64_t>(extent), &elements), "a shape that overflows");
  }
  expect(elements * size == tensor.size, "shape and bytes differ");
  if (tensor.type > StoredType::bf16 || elements > 1 << 16) return;
  std::vector<float> values(elements);
  to_float(tensor, values.data());
}

void run(const std::string& bytes) {
  set_file(bytes);
  const auto file = SafetensorsFile::open("INPUT");
  uint64_t header = 0, data = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const std::byte* next = nullptr;
  std::string read;
  for (const StoredTensor& tensor : file->tensors()) {
    expect(next == nullptr || tensor.data == next, "a gap or an overlap");
    next = tensor.data + tensor.size;
    data += tensor.size;
    check_tensor(tensor);
    read.append(reinterpret_cast<const char*>(tensor.data), tensor.size);
  }
  expect(sizeof header + header + data == bytes.size(), "bytes that do not belong to a tensor");
  expect(bytes.ends_with(read), "bytes that differ from the file");
}

struct Parts {
  std::string header, data;
};

Parts split(const std::string& bytes) {
  uint64_t length = 0;
  if (bytes.size() < sizeof length) return {bytes, ""};
  std::memcpy(&length, bytes.data(), sizeof length);
  const std::string rest = bytes.substr(sizeof length);
  return length > rest.size() ? Parts{rest, ""} : Parts{rest.substr(0, length), rest.substr(length)};
}

std::string join(const Parts& parts, Random& random) {
  uint64_t length = parts.header.size();
  if (random.one_in(20)) length = nasty_number(random, length);
  std::string out(reinterpret_cast<const char*>(&length), sizeof length);
  return out + parts.header + parts.data;
}

JsonNode scalar(const std::string& text) { return {JsonNode::Kind::scalar, text, "", {}}; }

/// Changes a number in a tensor's shape or range, or its dtype.
void change_entry(JsonNode& header, std::size_t data, Random& random) {
  if (header.children.empty()) return;
  JsonNode& entry = random.pick(header.children);
  if (entry.children.empty()) return;
  JsonNode& field = random.pick(entry.children);
  static const char* const types[] = {"F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64"};
  if (field.key == "\"dtype\"")
    field.text = '"' + std::string(random.pick(types)) + '"';
  else if (field.children.empty() || random.one_in(6))
    field.children.push_back(scalar(random.one_in(3) ? nasty_digits(random, data) : "1"));
  else
    random.pick(field.children).text = nasty_digits(random, data);
}

/// Adds a tensor, whose bytes are appended as a writer would do.
void add_tensor(JsonNode& header, std::string& data, Random& random) {
  const std::size_t begin = data.size(), rows = random.below(4), columns = random.below(5);
  data.append(rows * columns * 4, static_cast<char>(random.next()));
  const std::string entry = R"({"dtype":"F32","shape":[)" + std::to_string(rows) + "," + std::to_string(columns) +
                            R"(],"data_offsets":[)" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  JsonNode node = *parse_tree(entry);
  node.key = "\"t" + std::to_string(random.below(100)) + "\"";
  header.children.push_back(std::move(node));
}

std::string mutate(const std::string& bytes, const std::string& other, Random& random) {
  if (random.one_in(10)) return mutate_bytes(bytes, other, random);
  Parts parts = split(bytes);
  auto header = parse_tree(parts.header);
  if (!header) {
    parts.header = mutate_bytes(parts.header, split(other).header, random);
    return join(parts, random);
  }
  switch (random.below(5)) {
    case 0:
      parts.data = mutate_bytes(parts.data, other, random);
      break;
    case 1:
      add_tensor(*header, parts.data, random);
      break;
    case 2:
      mutate_tree(*header, split(other).header, random);
      break;
    default:
      change_entry(*header, parts.data.size(), random);
  }
  parts.header = write_tree(*header);
  if (random.one_in(8)) parts.header += std::string(random.below(9), random.one_in(4) ? '\0' : ' ');
  return join(parts, random);
}

}  // namespace

const Target target = {"safetensors", "INPUT", run, mutate};

}  // namespace peft::fuzz
