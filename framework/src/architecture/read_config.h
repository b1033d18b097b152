#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "peft/architecture/config.h"

namespace peft {

/// A config, and what a user should know about how it was read, a line each.
struct ReadConfig {
  DecoderConfig config;
  std::vector<std::string> notes;
};
/// decoder_config(); `ignore_unknown`: keys that are not known are noted instead of refused.
ReadConfig read_config(const nlohmann::json& config, const std::string& name, bool ignore_unknown);

}  // namespace peft
