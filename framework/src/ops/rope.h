#pragma once

#include "peft/architecture/config.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Frequencies of the rotary embedding, and the factor on its cosines and sines.
struct RopeFrequencies {
  Tensor inv_freq;  ///< [rotary dimensions / 2], fp32 on the CPU, as in transformers
  double attention_scaling = 1;
};

/// As transformers' modeling_rope_utils: default, linear, llama3 (Llama 3.1) and yarn (Peng et al. 2023).
RopeFrequencies rope_frequencies(const RopeConfig& rope, int64_t head_dim);

/// Cosines and sines of the positions' angles, [T, rotary dimensions / 2], fp32 on the positions' device.
struct Rotation {
  Tensor cos, sin;
};
Rotation rotate(const RopeFrequencies& frequencies, const Tensor& positions);

}  // namespace peft
