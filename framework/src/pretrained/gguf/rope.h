#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "peft/architecture/config.h"
#include "pretrained/gguf/metadata.h"

namespace peft {

/// `rope_scaling` of config.json; null if there is none. llama.cpp keeps Llama 3's scaling not in the metadata but as
/// the tensor rope_freqs.weight, the divisor of each frequency (transformers overlooks it and computes without
/// scaling): the parameters are found again from it, or it is an InputError.
nlohmann::json rope_scaling_of_gguf(const GgufFile& gguf, const GgufMetadata& metadata, double theta, int64_t head_dim);

/// The divisors that convert_hf_to_gguf.py of llama.cpp (LlamaModel.generate_extra_tensors) writes for Llama 3's
/// scaling.
std::vector<double> llama3_divisors(const RopeConfig& rope, int64_t head_dim);

inline const char* const gguf_rope_tensor = "rope_freqs.weight";

}  // namespace peft
