#include "peft/files/checkpoint.h"

#include <filesystem>

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

std::shared_ptr<const Checkpoint> Checkpoint::open(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status))
    throw InputError(printable(path, 4096) +
                     ": there is no such model; a Hugging Face folder or a .gguf file is wanted");
  return std::filesystem::is_directory(status) ? open_hf_folder(path) : open_gguf(path);
}

}  // namespace peft
