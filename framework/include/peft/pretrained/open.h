#pragma once

#include <memory>
#include <string>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"

namespace peft {

/// Maps a Hugging Face folder or a .gguf file. Throws InputError with the file and the reason: nothing in the files is
/// trusted.
PEFT_API std::shared_ptr<const PretrainedModel> open_pretrained(const std::string& path);

}  // namespace peft
