// Shows that a safetensors file is not trusted: wrong lengths, shapes, dtypes or offsets are an InputError that names
// the file; that a written file reads back equal; and that a failed write leaves no file.
#include "peft/files/safetensors.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "peft/base/error.h"
#include "peft/files/json.h"
#include "support/test.h"

using namespace peft;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("peft_safetensors_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string file(const std::string& name) const { return (path / name).string(); }
};

void put(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string file_of(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + data;
}

std::string error_of(const std::string& path) {
  try {
    SafetensorsFile::open(path);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

std::string small_file() {
  return file_of(R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[2],)"
                 R"("data_offsets":[8,12]},"__metadata__":{"format":"pt"}})",
                 std::string("\0\0\x80\x3f\0\0\0\x40\0\x3c\0\x40", 12));
}

}  // namespace

TEST_CASE("a written file reads back equal") {
  const Folder folder;
  const float values[] = {1, -2, 3.5F};
  const int64_t integer = -7;
  const std::map<std::string, const void*> data = {{"small", values}, {"empty", nullptr}, {"big", &integer}};
  SafetensorsWriter writer(
      folder.file("x.safetensors"),
      {{"small", StoredType::f32, {3}}, {"empty", StoredType::f16, {0, 4}}, {"big", StoredType::i64, {}}},
      {{"format", "pt"}});
  for (const TensorInfo& tensor : writer.tensors()) {
    CHECK_THROWS_AS(writer.commit(), std::logic_error);
    writer.write(data.at(tensor.name));
  }
  CHECK_FALSE(fs::exists(folder.file("x.safetensors")));
  writer.commit();
  const auto file = SafetensorsFile::open(folder.file("x.safetensors"));
  REQUIRE(file->tensors().size() == 3);
  CHECK(file->metadata().at("format") == "pt");
  CHECK(file->tensors()[0].name == "big");  // the widest type first
  float out[3];
  for (const StoredTensor& tensor : file->tensors())
    if (tensor.name == "small") to_float(tensor, out);
  CHECK(std::memcmp(out, values, sizeof out) == 0);
  CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()) == 1);
}

TEST_CASE("half precision becomes fp32 exactly") {
  const Folder folder;
  const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7bff, 0x03ff};
  const float expected[] = {1, -2, 0x1p-24F, -0.0F, 65504, 0x3ffp-24F};
  SafetensorsWriter writer(folder.file("h.safetensors"), {{"h", StoredType::f16, {6}}}, {});
  writer.write(halves);
  writer.commit();
  float out[6];
  to_float(SafetensorsFile::open(folder.file("h.safetensors"))->tensors()[0], out);
  CHECK(std::memcmp(out, expected, sizeof out) == 0);
}

TEST_CASE("an invalid header is refused with the reason") {
  const Folder folder;
  const std::string path = folder.file("bad.safetensors");
  const auto refused = [&](const std::string& header, const std::string& data, const std::string& part) {
    put(path, file_of(header, data));
    const std::string error = error_of(path);
    INFO(header << "\n" << error);
    CHECK(error.find(part) != std::string::npos);
    CHECK(error.find("bad.safetensors") != std::string::npos);
  };
  const std::string four(4, 'x');
  refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", four, "needs 8 bytes");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", four, "truncated");
  refused(R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", four, "F8_E4M3");
  refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", four,
          "more than 2^63 bytes");
  refused(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", four, "list of sizes");
  refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", four, "gap");
  refused(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", four, "after the last tensor");
  refused(
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
      four, "overlaps");
  refused(
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
      four, "twice");
  refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"more":1}})", four, "must have exactly the keys");
  refused(R"({"__metadata__":{"x":1}})", "", "must be a string");
  refused(R"([1])", "", "does not start with '{'");
  refused(std::string(200, '[') + std::string(200, ']'), "", "'{'");
  refused("{\"a\":" + std::string(200, '[') + std::string(200, ']') + "}", "", "deep");
  put(path, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10));
  CHECK(error_of(path).find("more than the format allows") != std::string::npos);
  CHECK(error_of(folder.file("absent")).find("absent") != std::string::npos);
  CHECK(error_of(folder.path.string()).find("not a regular file") != std::string::npos);
}

TEST_CASE("a file truncated at any byte is refused") {
  const Folder folder;
  const std::string path = folder.file("truncated.safetensors"), intact = small_file();
  put(path, intact);
  REQUIRE(error_of(path).empty());
  for (std::size_t size = 0; size < intact.size(); ++size) {
    put(path, intact.substr(0, size));
    CHECK_FALSE(error_of(path).empty());
  }
}

TEST_CASE("a corrupt file is read or refused with an InputError") {
  const Folder folder;
  const std::string path = folder.file("fuzz.safetensors"), intact = small_file();
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes = intact;
    for (int change = 0; change < 1 + static_cast<int>(random() % 4); ++change)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    put(path, bytes);
    CHECK_NOTHROW(error_of(path));  // nothing but InputError, which it returns
  }
}

TEST_CASE("a failed write leaves no temporary file") {
  const Folder folder;
  CHECK_THROWS_AS(write_file(folder.file("no/such/folder.json"), "{}"), ResourceError);
  put(folder.file("old"), "old");
  fs::create_directory(folder.file("taken"));
  CHECK_THROWS_AS(write_file(folder.file("taken"), "new"), ResourceError);
  CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()) == 2);
}
