#include "adapters/saved_embedding.h"

#include "peft/adapters/hf_format.h"

namespace peft {

std::vector<std::string> keys_of_saved_weight(const std::string& module) {
  std::vector<std::string> keys;
  for (const std::string name :
       {"original_module.weight", "base_layer.weight", "token_adapter.base_layer.weight", "weight"}) {
    keys.push_back(hf_key(module, name));
    keys.push_back("base_model." + module + "." + name);  // of prompt methods, which wrap no model
  }
  return keys;
}

std::string key_of_trained_copy(const std::string& key) {
  return key.substr(0, key.rfind('.')) + ".modules_to_save.weight";
}

}  // namespace peft
