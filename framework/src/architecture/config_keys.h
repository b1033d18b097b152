#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace peft {

/// Whether a key of config.json that is not read leaves the computation of a decoder as it is: records, generation
/// settings, and features that are off. The lists are in config_keys.cpp, for all families.
bool is_harmless(const std::string& key, const nlohmann::json& value);

}  // namespace peft
