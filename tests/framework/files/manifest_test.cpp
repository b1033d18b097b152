// Shows that a manifest matches exactly the files for which it was written, also in subfolders, and that a changed,
// missing or additional file is reported by name; that SHA-256 is the standard's; that an atomic directory appears
// complete, also in the place of an existing one, or not at all; and that files left by killed processes are recognized
// by name.
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
    fs::create_directories(path / "listed" / "inner");
    write("one", "1");
    write("two", std::string(3 << 20, 'x'));
    write("inner/three", "");
  }
  ~Folder() { fs::remove_all(path); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path / "listed" / name, std::ios::binary) << text;
  }
  std::string listed() const { return (path / "listed").string(); }
};

std::string sha256(const std::string& text) {
  Sha256 sha;
  sha.add(text.data(), text.size() / 2);
  sha.add(text.data() + text.size() / 2, text.size() - text.size() / 2);
  return sha.hex();
}

}  // namespace

TEST_CASE("SHA-256 gives the digests of FIPS 180-4") {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a file that does not match the manifest is reported by name") {
  const Folder folder;
  write_manifest(folder.listed());
  verify_manifest(folder.listed());
  const auto message = [&] { return message_of<InputError>([&] { verify_manifest(folder.listed()); }); };
  SECTION("a changed byte") {
    folder.write("two", std::string((3 << 20) - 1, 'x') + "y");
    CHECK(has(message(), "two: does not match its manifest"));
  }
  SECTION("a changed size") {
    folder.write("inner/three", "3");
    CHECK(has(message(), "inner/three: does not match its manifest"));
  }
  SECTION("a missing file") {
    fs::remove(folder.path / "listed" / "one");
    CHECK(has(message(), "'one' is missing"));
  }
  SECTION("an additional file") {
    folder.write("inner/four", "4");
    CHECK(has(message(), "contains 'inner/four', which is not in its manifest"));
  }
  SECTION("a link in place of a file") {
    fs::rename(folder.path / "listed" / "one", folder.path / "one");
    fs::create_symlink(folder.path / "one", folder.path / "listed" / "one");
    CHECK(has(message(), "not a regular file"));
  }
  SECTION("a missing manifest") {
    fs::remove(folder.path / "listed" / "manifest.json");
    CHECK(has(message(), "manifest.json is missing: the folder was not completely written"));
  }
  SECTION("an invalid manifest") {
    for (const char* text : {"", "[]", "{\"version\": 2, \"files\": {}}", "{\"version\": 1, \"files\": []}"}) {
      folder.write("manifest.json", text);
      CHECK(has(message(), "manifest.json"));
    }
  }
}

TEST_CASE("an atomic directory appears on commit, replaces an existing one only if asked to, or does not appear") {
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
  CHECK(has(message_of<ResourceError>([&] { late.commit(); }), "a file or folder of that name was created meanwhile"));
  CHECK(read_text(path + "/text", 100) == "new");
}

TEST_CASE("a second writer of the same atomic directory is refused and changes nothing") {
  const Folder folder;
  const std::string path = (folder.path / "made").string();
  AtomicDirectory draft(path);
  write_file(draft.file("text"), "mine");
  CHECK(has(message_of<ResourceError>([&] { AtomicDirectory second(path); }), "another run is writing to it"));
  draft.commit();
  CHECK(read_text(path + "/text", 100) == "mine");
  AtomicDirectory next(path, /*replace_existing=*/true);  // commit() released the lock
}

TEST_CASE("a folder is created with its parents, or exists already") {
  const Folder folder;
  const std::string path = (folder.path / "a" / "b").string();
  make_folder(path);
  make_folder(path);
  CHECK(fs::is_directory(path));
  write_file(path + "/text", "");
  CHECK(has(message_of<ResourceError>([&] { make_folder(path + "/text/c"); }), "cannot be created"));
}

TEST_CASE("a locked folder cannot be locked a second time") {
  const Folder folder;
  {
    const DirectoryLock lock(folder.listed());
    CHECK(
        has(message_of<ResourceError>([&] { DirectoryLock second(folder.listed()); }), "another run is writing to it"));
  }
  const DirectoryLock again(folder.listed());
}

TEST_CASE("a temporary file of a killed process is recognized by its name") {
  CHECK(is_file_draft(".resolved.toml.writing-123"));
  for (const char* name : {"resolved.toml.writing-123", ".resolved.toml.writing-", ".a.writing-1b", ".hidden", ""})
    CHECK_FALSE(is_file_draft(name));
}
