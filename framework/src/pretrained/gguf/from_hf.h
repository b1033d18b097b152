#pragma once

#include <vector>

#include "peft/architecture/config.h"
#include "pretrained/gguf/writer.h"

namespace peft {

/// `llama.*` as llama.cpp's convert_hf_to_gguf.py writes it for this model. Throws InputError where llama.cpp's llama
/// cannot compute what the model does.
GgufPairs gguf_pairs_of(const DecoderConfig& config);

/// The tensor rope_freqs.weight: the divisor of each frequency under Llama 3's scaling, [head_dim / 2]; empty for a
/// model without.
std::vector<float> rope_divisors_of(const RopeConfig& rope, int64_t head_dim);

}  // namespace peft
