#include "peft/files/pretrained_model.h"

#include <algorithm>

#include "base/digest.h"

namespace peft {

PretrainedModel::~PretrainedModel() = default;

const StoredTensor* PretrainedModel::find(const std::string& name) const {
  for (const StoredTensor& tensor : tensors())
    if (tensor.name == name) return &tensor;
  return nullptr;
}

std::string PretrainedModel::fingerprint() const {
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : tensors()) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  Digest digest;
  for (const StoredTensor* tensor : order) {
    digest.add(tensor->name);
    std::string type_and_shape = std::to_string(static_cast<int>(tensor->type));
    for (const int64_t size : tensor->shape) type_and_shape += " " + std::to_string(size);
    digest.add(type_and_shape);
    digest.add(tensor->data, tensor->size);
  }
  return digest.hex();
}

}  // namespace peft
