#pragma once

#include <string>
#include <vector>

namespace peft {

/// The keys at which HF PEFT saves the frozen weight of the embedding or the head with an adapter: the module's own
/// key, or that of the module that wraps it. The last are the module's own, which a weight trained in full may also
/// have.
std::vector<std::string> keys_of_saved_weight(const std::string& module);
/// The second key at which HF PEFT saves a weight that trains in full; `key`: the module's own.
std::string key_of_trained_copy(const std::string& key);

}  // namespace peft
