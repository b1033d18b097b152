#pragma once
// A small model whose own parameters train, without an adapter's plugin: for the kinds that see a model only in
// passing.

#include "peft/data/sampler.h"
#include "peft/models/causal_lm.h"

namespace peft {

struct SmallRun {
  /// Trains copies of a few of the sites' parameters in `adapter_dtype`; the same values for every dtype, as far as it
  /// has them.
  SmallRun(torch::Dtype base_dtype, torch::Dtype adapter_dtype);
  std::vector<Tensor> parameters() const;
  /// Copies of the gradients, which are cleared; undefined where there is none.
  std::vector<Tensor> take_gradients() const;
  Batch batch(const std::vector<std::size_t>& examples) const { return make_batch(data, examples); }
  std::shared_ptr<CausalLm> model;
  Dataset data;  ///< examples of unequal lengths, the first tokens of each masked
};

}  // namespace peft
