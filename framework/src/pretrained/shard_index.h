#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>

namespace peft {

/// `weight_map` of a model.safetensors.index.json: each file, and the tensors it must hold. `name` stands in messages
/// for the index. Throws InputError where a file is not a *.safetensors beside the index.
std::map<std::string, std::set<std::string>> read_shard_index(const nlohmann::json& index, const std::string& name);

}  // namespace peft
