#pragma once

#include <vector>

#include "peft/architecture/config.h"
#include "pretrained/gguf/writer.h"

namespace peft {

/// The `llama.*` pairs that llama.cpp's convert_hf_to_gguf.py writes for this model. Throws InputError if llama.cpp
/// cannot compute the same.
GgufPairs gguf_pairs_of(const DecoderConfig& config);

/// The tensor rope_freqs.weight, [head_dim / 2]: the divisor of each frequency for Llama 3's RoPE scaling. Empty for
/// other models.
std::vector<float> rope_divisors_of(const RopeConfig& rope, int64_t head_dim);

}  // namespace peft
