#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>

namespace peft {

/// Reads `weight_map` of a model.safetensors.index.json: for each file, the tensors that it must contain. `name` is
/// used as the file name in messages. Throws InputError if an entry is not a *.safetensors file in the folder of the
/// index.
std::map<std::string, std::set<std::string>> read_shard_index(const nlohmann::json& index, const std::string& name);

}  // namespace peft
