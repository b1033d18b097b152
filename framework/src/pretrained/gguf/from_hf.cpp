#include "pretrained/gguf/from_hf.h"

#include "peft/base/error.h"
#include "pretrained/gguf/rope.h"

namespace peft {

namespace {

void add_scaling(const RopeConfig& rope, GgufPairs& pairs) {
  const std::string prefix = "llama.rope.scaling.";
  const auto add_context = [&] {
    pairs.emplace_back(prefix + "original_context_length",
                       static_cast<uint32_t>(rope.original_max_position_embeddings));
  };
  if (rope.type == "llama3")
    add_context();  // llama.cpp uses only the tensor of divisors; readers need this to recover the parameters
  if (rope.type != "linear" && rope.type != "yarn") return;
  pairs.emplace_back(prefix + "type", rope.type);
  pairs.emplace_back(prefix + "factor", static_cast<float>(rope.factor));
  if (rope.type == "linear") return;
  if (rope.attention_factor || rope.mscale || rope.mscale_all_dim || !rope.truncate)
    throw InputError("GGUF cannot represent YaRN with 'attention_factor', 'mscale' or 'truncate'");
  add_context();
  pairs.emplace_back(prefix + "yarn_beta_fast", static_cast<float>(rope.beta_fast));
  pairs.emplace_back(prefix + "yarn_beta_slow", static_cast<float>(rope.beta_slow));
}

}  // namespace

GgufPairs gguf_pairs_of(const DecoderConfig& config) {
  GgufPairs pairs;
  const auto integer = [&](const char* key, int64_t value) {
    pairs.emplace_back("llama." + std::string(key), static_cast<uint32_t>(value));
  };
  integer("block_count", config.num_hidden_layers);
  integer("context_length", config.max_position_embeddings);
  integer("embedding_length", config.hidden_size);
  integer("feed_forward_length", config.intermediate_size);
  integer("attention.head_count", config.num_attention_heads);
  integer("attention.head_count_kv", config.num_key_value_heads);
  integer("attention.key_length", config.head_dim);
  integer("attention.value_length", config.head_dim);
  integer("rope.dimension_count", config.head_dim);
  integer("vocab_size", config.vocab_size);
  pairs.emplace_back("llama.rope.freq_base", static_cast<float>(config.rope.theta));
  pairs.emplace_back("llama.attention.layer_norm_rms_epsilon", static_cast<float>(config.rms_norm_eps));
  add_scaling(config.rope, pairs);
  return pairs;
}

std::vector<float> rope_divisors_of(const RopeConfig& rope, int64_t head_dim) {
  if (rope.type != "llama3") return {};
  const std::vector<double> divisors = llama3_divisors(rope, head_dim);
  return {divisors.begin(), divisors.end()};
}

}  // namespace peft
