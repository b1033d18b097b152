#include "models/family.h"

#include "nn/pre_norm.h"

namespace peft {

namespace {

std::shared_ptr<Block> llama_block(const DecoderConfig& c, const LayerPosition& position) {
  const auto site = [&](const char* name, const char* role) { return position.site(name, role); };
  const auto norm = [&](const char* name) {
    return std::make_shared<RmsNorm>(site(name, name), c.hidden_size, c.rms_norm_eps);
  };
  const AttentionShape shape{.hidden = c.hidden_size,
                             .heads = c.num_attention_heads,
                             .kv_heads = c.num_key_value_heads,
                             .head_dim = c.head_dim,
                             .qkv_bias = c.attention_bias,
                             .out_bias = c.attention_out_bias};
  return std::make_shared<Block>(std::vector<std::shared_ptr<Sublayer>>{
      std::make_shared<PreNormAttention>(norm("input_layernorm"), std::make_shared<Attention>(shape, site)),
      std::make_shared<PreNormMlp>(norm("post_attention_layernorm"),
                                   std::make_shared<SwigluMlp>(c.hidden_size, c.intermediate_size, c.mlp_bias, site))});
}

std::shared_ptr<Norm> llama_norm(const DecoderConfig& c, SiteInfo info) {
  return std::make_shared<RmsNorm>(std::move(info), c.hidden_size, c.rms_norm_eps);
}

constexpr ModelFamily kLlama{llama_block, llama_norm};

}  // namespace

// Every model_type that decoder_config() accepts today has Llama's block.
const ModelFamily& model_family(const DecoderConfig&) { return kLlama; }

}  // namespace peft
