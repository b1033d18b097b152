#pragma once

#include <cstdint>
#include <string>

namespace peft {

/// The Hugging Face name of a GGUF tensor of the architecture llama with `layers` layers; "" if it has none.
std::string hf_name_of_gguf(const std::string& name, int64_t layers);
/// The GGUF name of a Hugging Face tensor. Throws InputError if llama.cpp has no such tensor.
std::string gguf_name_of_hf(const std::string& name);

}  // namespace peft
