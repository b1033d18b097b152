#include "peft/models/generate.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "peft/base/error.h"
#include "runtime/finite.h"

namespace peft {

int64_t sample(const Tensor& logits, const Sampling& sampling, torch::Generator& generator) {
  if (!all_finite(logits))
    throw DivergedError(
        "the model's logits are NaN or infinite: weights of the model or of its adapter are too large; use a wider "
        "precision");
  if (sampling.temperature <= 0) return logits.argmax().item<int64_t>();
  constexpr double excluded = -std::numeric_limits<double>::infinity();
  // On the CPU in fp64, so that every device chooses the same token; these are a few small operations per token.
  Tensor scores = logits.to(torch::kCPU, torch::kDouble) / sampling.temperature;
  if (sampling.top_k > 0 && sampling.top_k < scores.size(0)) {
    const Tensor least = std::get<0>(scores.topk(sampling.top_k)).min();
    scores = scores.masked_fill(scores < least, excluded);
  }
  if (sampling.top_p < 1) {
    const auto [sorted, order] = scores.sort(/*dim=*/0, /*descending=*/true);
    const Tensor probabilities = sorted.softmax(0);
    // A token remains if the probabilities before it add up to less than top_p, so the first one always remains.
    const Tensor drop = probabilities.cumsum(0) - probabilities >= sampling.top_p;
    scores = scores.index_fill(0, order.masked_select(drop), excluded);
  }
  return at::multinomial(scores.softmax(0), 1, false, generator).item<int64_t>();
}

std::vector<int64_t> generate(CausalLm& model, const std::vector<int64_t>& prompt, const Sampling& sampling,
                              const std::function<bool(int64_t)>& on_token) {
  const auto length = static_cast<int64_t>(prompt.size()),
             max_length = model.config().max_position_embeddings - model.virtual_positions();
  if (prompt.empty()) throw InputError("the prompt has no tokens, so there is nothing to continue");
  if (length >= max_length)
    throw InputError("the prompt has " + std::to_string(length) + " tokens; the limit of the model is " +
                     std::to_string(max_length) + (model.virtual_positions() > 0 ? " after the virtual tokens" : ""));
  const torch::InferenceMode guard;
  model.eval();
  const int64_t max_new_tokens = std::min(sampling.max_new_tokens, max_length - length);
  KeyValueCache cache = model.make_cache(length + max_new_tokens);
  torch::Generator generator = at::detail::createCPUGenerator(sampling.seed);
  std::vector<int64_t> pending = prompt, output;
  while (static_cast<int64_t>(output.size()) < max_new_tokens) {
    std::vector<int64_t> positions(pending.size());
    std::iota(positions.begin(), positions.end(), cache.length);
    const PackedTokens input{torch::tensor(pending, torch::kLong).to(model.device()),
                             torch::tensor(positions, torch::kLong).to(model.device()),
                             {0, static_cast<int64_t>(pending.size())}};
    const Tensor last = model.hidden_states(input, &cache).narrow(0, input.ids.size(0) - 1, 1);
    const int64_t token = sample(model.logits(last)[0], sampling, generator);
    if (std::find(sampling.eos_ids.begin(), sampling.eos_ids.end(), token) != sampling.eos_ids.end()) break;
    output.push_back(token);
    if (!on_token(token)) break;
    pending = {token};
  }
  return output;
}

}  // namespace peft
