#include "pretrained/shard_index.h"

#include <nlohmann/json.hpp>

#include "peft/base/error.h"

namespace peft {

namespace {

/// True for the name of a file in the same folder that is not hidden.
bool is_plain_name(const std::string& file) {
  return file.ends_with(".safetensors") && !file.starts_with(".") && file.find_first_of("/\\\0", 0, 3) == file.npos;
}

}  // namespace

std::map<std::string, std::set<std::string>> read_shard_index(const nlohmann::json& index, const std::string& name) {
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object() || map->empty()) throw InputError(name + ": has no weight_map");
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [tensor, file] : map->items()) {
    const std::string shard = file.is_string() ? file.get<std::string>() : "";
    if (!is_plain_name(shard))
      throw InputError(name + ": weight_map: '" + printable(tensor) + "' names '" + printable(shard) +
                       "'; it must be a *.safetensors file in the folder of the index");
    shards[shard].insert(tensor);
  }
  return shards;
}

}  // namespace peft
