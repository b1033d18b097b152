#pragma once

#include <string>
#include <vector>

namespace peft {

/// The keys under which HF PEFT saves the frozen weight of the embedding or the head beside an adapter: the module as
/// it is, or in whatever wraps it. The last are the module's own key, where a weight that is trained whole may lie,
/// too.
std::vector<std::string> keys_of_saved_weight(const std::string& module);
/// Where a weight that is trained whole lies once more, `key` being the module's own.
std::string key_of_trained_copy(const std::string& key);

}  // namespace peft
