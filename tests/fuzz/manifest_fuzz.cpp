// Checks that a folder is accepted only with a manifest that lists exactly its files, with their sizes and SHA-256
// digests. Those in the corpus were computed by another program.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "json_tree.h"
#include "peft/files/manifest.h"
#include "target.h"

namespace peft::fuzz {

namespace {

namespace fs = std::filesystem;

/// A folder with two small files that is deleted at the end of the program.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("INPUT_" + std::to_string(::getpid()))) {
    fs::create_directories(path_ / "part");
    std::ofstream(path_ / "a.bin") << "0123456789";
    std::ofstream(path_ / "part" / "b.bin") << "";
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

void run(const std::string& bytes) {
  static const Folder folder;
  std::ofstream(folder.path() / "manifest.json", std::ios::binary) << bytes;
  verify_manifest(folder.path().string());
  const auto files = nlohmann::json::parse(bytes).at("files");
  expect(files.size() == 2, "missing or additional files");
  expect(files.at("a.bin").at("size") == 10 && files.at("part/b.bin").at("size") == 0, "a wrong size");
  expect(files.at("a.bin").at("sha256") == "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
         "a wrong digest");
}

}  // namespace

const Target target = {"manifest", "INPUT", run, mutate_json};

}  // namespace peft::fuzz
