#pragma once

#include <cstdint>
#include <string>

namespace peft {

/// The Hugging Face name of a llama-architecture GGUF's tensor; "" if it has none.
std::string hf_name_of_gguf(const std::string& name, int64_t layers);

}  // namespace peft
