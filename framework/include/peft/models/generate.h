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
  double temperature = 0;  ///< 0: always the most probable token
  int64_t top_k = 0;       ///< choose among the k most probable; 0: all
  double top_p = 1;        ///< choose among the fewest whose probabilities add up to this (Holtzman et al. 2020)
  uint64_t seed = 0;
  std::vector<int64_t> eos_ids;  ///< any of them ends the sequence; it is not part of the result
};

/// Continues `prompt` (at least one token) with a key-value cache and returns the new tokens. Calls `on_token` with
/// each of them; false stops. Throws InputError for an empty prompt and for one that leaves no position in the model,
/// DivergedError for logits that are not finite.
PEFT_API std::vector<int64_t> generate(
    CausalLm& model, const std::vector<int64_t>& prompt, const Sampling& sampling,
    const std::function<bool(int64_t)>& on_token = [](int64_t) { return true; });

/// Chooses a token from `logits` [vocabulary]. Throws DivergedError if they are not finite.
PEFT_API int64_t sample(const Tensor& logits, const Sampling& sampling, torch::Generator& generator);

}  // namespace peft
