#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "peft/base/export.h"
#include "peft/models/causal_lm.h"

namespace peft {

/// How the next token is chosen, in the order of transformers: temperature, then top_k, then top_p.
struct Sampling {
  int64_t max_new_tokens = 128;
  double temperature = 0;  ///< 0: the likeliest token, always
  int64_t top_k = 0;       ///< keep the k likeliest; 0: all
  double top_p = 1;        ///< keep the fewest that hold this probability (Holtzman et al. 2020)
  uint64_t seed = 0;
  std::vector<int64_t> eos_ids;  ///< any of them ends it, and is not part of the result
};

/// Continues `prompt` (at least one token) with a key-value cache. `on_token` is told each new token; false stops.
PEFT_API std::vector<int64_t> generate(
    CausalLm& model, const std::vector<int64_t>& prompt, const Sampling& sampling,
    const std::function<bool(int64_t)>& on_token = [](int64_t) { return true; });

/// One choice from `logits` [vocabulary].
PEFT_API int64_t sample(const Tensor& logits, const Sampling& sampling, torch::Generator& generator);

}  // namespace peft
