#include "peft/models/generate.h"

#include <torch/torch.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "peft/base/error.h"
#include "runtime/finite.h"

namespace peft {

int64_t sample(const Tensor& logits, const Sampling& sampling, torch::Generator& generator) {
  if (!all_finite(logits))
    throw DivergedError("the model's logits are NaN or infinite: its numbers, or those of its adapter, are too large");
  if (sampling.temperature <= 0) return logits.argmax().item<int64_t>();
  constexpr double never = -std::numeric_limits<double>::infinity();
  // On the host, in double: a handful of small operations a token, and the same choice on every device.
  Tensor scores = logits.to(torch::kCPU, torch::kDouble) / sampling.temperature;
  if (sampling.top_k > 0 && sampling.top_k < scores.size(0)) {
    const Tensor least = std::get<0>(scores.topk(sampling.top_k)).min();
    scores = scores.masked_fill(scores < least, never);
  }
  if (sampling.top_p < 1) {
    const auto [sorted, order] = scores.sort(/*dim=*/0, /*descending=*/true);
    const Tensor probabilities = sorted.softmax(0);
    // A token stays if those before it hold less than top_p; so the first always does.
    const Tensor drop = probabilities.cumsum(0) - probabilities >= sampling.top_p;
    scores = scores.index_fill(0, order.masked_select(drop), never);
  }
  return at::multinomial(scores.softmax(0), 1, false, generator).item<int64_t>();
}

std::vector<int64_t> generate(CausalLm& model, const std::vector<int64_t>& prompt, const Sampling& sampling,
                              const std::function<bool(int64_t)>& on_token) {
  const auto length = static_cast<int64_t>(prompt.size()),
             room = model.config().max_position_embeddings - model.virtual_positions();
  if (prompt.empty()) throw InputError("nothing to continue: the prompt has no token");
  if (length >= room)
    throw InputError("the prompt has " + std::to_string(length) + " tokens; the model was made for at most " +
                     std::to_string(room) + (model.virtual_positions() > 0 ? " behind its virtual ones" : ""));
  const torch::InferenceMode guard;
  model.eval();
  const int64_t most = std::min(sampling.max_new_tokens, room - length);
  KeyValueCache cache = model.make_cache(length + most);
  torch::Generator generator = at::detail::createCPUGenerator(sampling.seed);
  std::vector<int64_t> fresh = prompt, made;
  while (static_cast<int64_t>(made.size()) < most) {
    std::vector<int64_t> positions(fresh.size());
    std::iota(positions.begin(), positions.end(), cache.length);
    const PackedTokens input{torch::tensor(fresh, torch::kLong).to(model.device()),
                             torch::tensor(positions, torch::kLong).to(model.device()),
                             {0, static_cast<int64_t>(fresh.size())}};
    const Tensor last = model.hidden_states(input, &cache).narrow(0, input.ids.size(0) - 1, 1);
    const int64_t token = sample(model.logits(last)[0], sampling, generator);
    if (std::find(sampling.eos_ids.begin(), sampling.eos_ids.end(), token) != sampling.eos_ids.end()) break;
    made.push_back(token);
    if (!on_token(token)) break;
    fresh = {token};
  }
  return made;
}

}  // namespace peft
