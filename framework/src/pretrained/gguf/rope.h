#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "peft/architecture/config.h"
#include "pretrained/gguf/metadata.h"

namespace peft {

/// `rope_scaling` of config.json; null if there is none. llama.cpp stores Llama 3's scaling as the tensor
/// rope_freqs.weight, the divisor of each frequency, and not in the metadata (transformers ignores it). Its parameters
/// are recovered from the tensor; throws InputError if they do not reproduce it.
nlohmann::json rope_scaling_of_gguf(const GgufFile& gguf, const GgufMetadata& metadata, double theta, int64_t head_dim);

/// The divisors, [head_dim / 2], that llama.cpp's convert_hf_to_gguf.py (LlamaModel.generate_extra_tensors) writes for
/// Llama 3's scaling.
std::vector<double> llama3_divisors(const RopeConfig& rope, int64_t head_dim);

inline const char* const gguf_rope_tensor = "rope_freqs.weight";

}  // namespace peft
