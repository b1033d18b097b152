#pragma once

#include <memory>
#include <string>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"

namespace peft {

/// Opens a Hugging Face folder or a .gguf file and maps its weights. The files are not trusted: throws InputError, with
/// the file and the reason, if one of them is invalid.
PEFT_API std::shared_ptr<const PretrainedModel> open_pretrained(const std::string& path);

}  // namespace peft
