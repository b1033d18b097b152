// A manifest promises: it holds for just the files that were there when it was written, each as it was, in folders too;
// whatever is changed, gone or more is told by its name. SHA-256 is the standard's. A draft folder appears whole, in
// the place of one that may be there, or not at all; what killed processes left is known by its name.
#include "peft/files/manifest.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "files/atomic_file.h"
#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"
#include "peft/files/directory_lock.h"
#include "peft/files/json.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("peft_manifest_" + std::to_string(::getpid()));
  Folder() {
    fs::remove_all(path);
    fs::create_directories(path / "sealed" / "inner");
    write("one", "1");
    write("two", std::string(3 << 20, 'x'));
    write("inner/three", "");
  }
  ~Folder() { fs::remove_all(path); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path / "sealed" / name, std::ios::binary) << text;
  }
  std::string sealed() const { return (path / "sealed").string(); }
};

std::string sum(const std::string& text) {
  Sha256 sha;
  sha.add(text.data(), text.size() / 2);
  sha.add(text.data() + text.size() / 2, text.size() - text.size() / 2);
  return sha.hex();
}

}  // namespace

TEST_CASE("SHA-256 is that of FIPS 180-4") {
  CHECK(sum("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sum("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sum("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sum(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a manifest tells what is not as it was") {
  const Folder folder;
  write_manifest(folder.sealed());
  verify_manifest(folder.sealed());
  const auto told = [&] { return message_of<InputError>([&] { verify_manifest(folder.sealed()); }); };
  SECTION("a byte") {
    folder.write("two", std::string((3 << 20) - 1, 'x') + "y");
    CHECK(has(told(), "two: is not as its manifest says"));
  }
  SECTION("a size") {
    folder.write("inner/three", "3");
    CHECK(has(told(), "inner/three: is not as its manifest says"));
  }
  SECTION("a file less") {
    fs::remove(folder.path / "sealed" / "one");
    CHECK(has(told(), "lacks 'one'"));
  }
  SECTION("a file more") {
    folder.write("inner/four", "4");
    CHECK(has(told(), "holds 'inner/four', which its manifest does not name"));
  }
  SECTION("a link in a file's place") {
    fs::rename(folder.path / "sealed" / "one", folder.path / "one");
    fs::create_symlink(folder.path / "one", folder.path / "sealed" / "one");
    CHECK(has(told(), "is no plain file"));
  }
  SECTION("no manifest") {
    fs::remove(folder.path / "sealed" / "manifest.json");
    CHECK(has(told(), "has no manifest.json, so it was never finished"));
  }
  SECTION("a manifest that is none") {
    for (const char* text : {"", "[]", "{\"version\": 2, \"files\": {}}", "{\"version\": 1, \"files\": []}"}) {
      folder.write("manifest.json", text);
      CHECK(has(told(), "manifest.json"));
    }
  }
}

TEST_CASE("a draft folder appears by publish, in an older one's place where it may, or not at all") {
  const Folder folder;
  const std::string path = (folder.path / "made").string();
  for (const std::string& text : {std::string("old"), std::string("new")}) {
    {
      AtomicDirectory given_up(path);
      write_file(given_up.file("text"), "never");
    }
    AtomicDirectory draft(path, /*replace_existing=*/true);
    write_file(draft.file("text"), text);
    draft.commit();
    CHECK(read_text(path + "/text", 100) == text);
    CHECK_FALSE(fs::exists(path + AtomicDirectory::kStagingSuffix));
  }
  AtomicDirectory late(path);
  write_file(late.file("text"), "late");
  CHECK(has(message_of<ResourceError>([&] { late.commit(); }), "something of that name is there now"));
  CHECK(read_text(path + "/text", 100) == "new");
}

TEST_CASE("a draft is one process's: another one is refused, and harms nothing") {
  const Folder folder;
  const std::string path = (folder.path / "made").string();
  AtomicDirectory draft(path);
  write_file(draft.file("text"), "mine");
  CHECK(has(message_of<ResourceError>([&] { AtomicDirectory second(path); }), "another run is writing into it"));
  draft.commit();
  CHECK(read_text(path + "/text", 100) == "mine");
  AtomicDirectory next(path, /*replace_existing=*/true);  // what is published is nobody's
}

TEST_CASE("a folder is made with those above it, or is there") {
  const Folder folder;
  const std::string path = (folder.path / "a" / "b").string();
  make_folder(path);
  make_folder(path);
  CHECK(fs::is_directory(path));
  write_file(path + "/text", "");
  CHECK(has(message_of<ResourceError>([&] { make_folder(path + "/text/c"); }), "cannot be made"));
}

TEST_CASE("a folder is one run's") {
  const Folder folder;
  {
    const DirectoryLock lock(folder.sealed());
    CHECK(has(message_of<ResourceError>([&] { DirectoryLock second(folder.sealed()); }),
              "another run is writing into it"));
  }
  const DirectoryLock again(folder.sealed());
}

TEST_CASE("a killed process's file is known by its name") {
  CHECK(is_file_draft(".resolved.toml.writing-123"));
  for (const char* name : {"resolved.toml.writing-123", ".resolved.toml.writing-", ".a.writing-1b", ".hidden", ""})
    CHECK_FALSE(is_file_draft(name));
}
