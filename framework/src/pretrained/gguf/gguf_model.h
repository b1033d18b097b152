#pragma once

#include <memory>
#include <string>

namespace peft {

class PretrainedModel;

/// A llama-architecture GGUF file (version 2 or 3, little-endian) as a Hugging Face folder. Throws InputError naming
/// the file and what is wrong in it, what is not implemented included.
std::shared_ptr<const PretrainedModel> open_gguf(const std::string& path);

}  // namespace peft
