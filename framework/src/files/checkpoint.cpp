#include "peft/files/checkpoint.h"

namespace peft {

Checkpoint::~Checkpoint() = default;

const StoredTensor* Checkpoint::find(const std::string& name) const {
  for (const StoredTensor& tensor : tensors())
    if (tensor.name == name) return &tensor;
  return nullptr;
}

}  // namespace peft
