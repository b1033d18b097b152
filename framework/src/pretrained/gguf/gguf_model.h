#pragma once

#include <memory>
#include <string>

#include "peft/pretrained/open.h"

namespace peft {

/// Opens a GGUF file (architecture llama, version 2 or 3, little-endian), presented as a Hugging Face folder. Throws
/// InputError, with the file and the reason, if it is invalid or uses something that is not implemented.
std::shared_ptr<const PretrainedModel> open_gguf(const std::string& path, const OpenOptions& options = {});

}  // namespace peft
