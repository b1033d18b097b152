#include "peft/pretrained/open.h"

#include <filesystem>

#include "peft/base/error.h"
#include "pretrained/gguf/gguf_model.h"
#include "pretrained/hf_folder.h"

namespace peft {

std::shared_ptr<const PretrainedModel> open_pretrained(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status))
    throw InputError(printable_path(path) + ": no such model; expected a Hugging Face folder or a .gguf file");
  return std::filesystem::is_directory(status) ? open_hf_folder(path) : open_gguf(path);
}

}  // namespace peft
