// Promises that a folder passes for whole only with a manifest that names just its files, each with its own size and
// SHA-256 (of which the corpus has those that another program computed).
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

/// A folder with two small files, that goes when the program does.
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
  promise(files.size() == 2, "files more or less than there are");
  promise(files.at("a.bin").at("size") == 10 && files.at("part/b.bin").at("size") == 0, "another size");
  promise(files.at("a.bin").at("sha256") == "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
          "another sum");
}

}  // namespace

const Target target = {"manifest", "INPUT", run, mutate_json};

}  // namespace peft::fuzz
