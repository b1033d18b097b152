// Checks that an accepted shard index names only *.safetensors files in its own folder.
#include <nlohmann/json.hpp>

#include "json_tree.h"
#include "peft/files/json.h"
#include "pretrained/shard_index.h"
#include "target.h"

namespace peft::fuzz {

namespace {

void run(const std::string& bytes) {
  const auto shards = read_shard_index(parse_json(bytes, "INPUT"), "INPUT");
  expect(!shards.empty(), "an index without files");
  for (const auto& [file, tensors] : shards) {
    expect(file.find_first_of(std::string("/\\\0", 3)) == file.npos && file != "." && file != "..", "another folder");
    expect(file.ends_with(".safetensors") && file.front() != '.', "another kind of file");
    expect(!tensors.empty(), "a file without tensors");
  }
}

}  // namespace

const Target target = {"index", "INPUT", run, mutate_json};

}  // namespace peft::fuzz
