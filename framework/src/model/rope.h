#pragma once

#include <vector>

#include "peft/model/config.h"

namespace peft {

/// The rotation's frequencies and the factor on its cosines and sines.
struct RopeFrequencies {
  std::vector<float> inv_freq;  ///< [rotary dimensions / 2], in fp32 as transformers keeps them
  double attention_scaling = 1;
};

/// As transformers' modeling_rope_utils: default, linear, llama3 and yarn (Peng et al. 2023).
RopeFrequencies rope_frequencies(const RopeConfig& rope, int64_t head_dim);

}  // namespace peft
