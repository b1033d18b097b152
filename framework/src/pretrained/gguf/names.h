#pragma once

#include <cstdint>
#include <string>

namespace peft {

/// The Hugging Face name of a llama-architecture GGUF's tensor; "" if it has none.
std::string hf_name_of_gguf(const std::string& name, int64_t layers);
/// The other way. Throws InputError for a tensor that llama.cpp's llama has not.
std::string gguf_name_of_hf(const std::string& name);

}  // namespace peft
