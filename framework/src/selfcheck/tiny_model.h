#pragma once

#include <torch/torch.h>

#include "peft/models/causal_lm.h"

namespace peft::test {

/// A Llama of a few numbers, with random frozen weights.
inline DecoderConfig tiny_config(int64_t layers = 2, bool attention_bias = false, bool tied = false) {
  DecoderConfig config;
  config.model_type = "llama";
  config.vocab_size = 40;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = layers;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.max_position_embeddings = 64;
  config.attention_bias = attention_bias;
  config.attention_out_bias = attention_bias;
  config.tie_word_embeddings = tied;
  return config;
}

inline std::shared_ptr<CausalLm> tiny_model(const DecoderConfig& config, torch::Dtype dtype = torch::kFloat) {
  auto model = std::make_shared<CausalLm>(config);
  auto generator = at::detail::createCPUGenerator(1);
  const auto random = [&](at::IntArrayRef shape) { return (0.3 * torch::randn(shape, generator)).to(dtype); };
  for (Site* site : model->sites()) {
    WeightAndBias weights;
    if (const auto* linear = dynamic_cast<Linear*>(site)) {
      const auto names = site->parameter_names();
      if (config.tie_word_embeddings && site == &model->lm_head())
        weights.weight = model->embedding().dense();
      else
        weights.weight = random({linear->out_features(), linear->in_features()});
      if (std::find(names.begin(), names.end(), "bias") != names.end()) weights.bias = random({linear->out_features()});
    } else if (const auto* embedding = dynamic_cast<Embedding*>(site)) {
      weights.weight = random({embedding->rows(), embedding->hidden()});
    } else if (const auto* norm = dynamic_cast<Norm*>(site)) {
      weights.weight = 1 + random({norm->hidden()});
    }
    site->load_base_weight(weights);
  }
  return model;
}

/// One example of random tokens.
inline PackedTokens tiny_tokens(const Model& model, int64_t tokens) {
  auto generator = at::detail::createCPUGenerator(2);
  return {
      torch::randint(model.config().vocab_size, {tokens}, generator, torch::kLong), torch::arange(tokens), {0, tokens}};
}

}  // namespace peft::test
