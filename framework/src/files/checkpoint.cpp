#include "peft/files/checkpoint.h"

#include <algorithm>
#include <filesystem>

#include "base/digest.h"
#include "files/gguf.h"
#include "files/hf_folder.h"
#include "peft/error.h"

namespace peft {

Checkpoint::~Checkpoint() = default;

const StoredTensor* Checkpoint::find(const std::string& name) const {
  for (const StoredTensor& tensor : tensors())
    if (tensor.name == name) return &tensor;
  return nullptr;
}

std::string Checkpoint::fingerprint() const {
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : tensors()) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  Digest digest;
  for (const StoredTensor* tensor : order) {
    digest.add(tensor->name);
    std::string form = std::to_string(static_cast<int>(tensor->type));
    for (const int64_t size : tensor->shape) form += " " + std::to_string(size);
    digest.add(form);
    digest.add(tensor->data, tensor->size);
  }
  return digest.hex();
}

std::shared_ptr<const Checkpoint> Checkpoint::open(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status))
    throw InputError(printable(path, 4096) +
                     ": there is no such model; a Hugging Face folder or a .gguf file is wanted");
  return std::filesystem::is_directory(status) ? open_hf_folder(path) : open_gguf(path);
}

}  // namespace peft
