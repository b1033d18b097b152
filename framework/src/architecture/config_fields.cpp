#include "peft/architecture/config_fields.h"

#include <nlohmann/json.hpp>

namespace peft {

namespace {

using json = nlohmann::ordered_json;

json or_null(const std::optional<double>& number) { return number ? json(*number) : json(nullptr); }

// The structured bindings list all members, so that adding a member breaks the build until it is added here.
json fields_of_rope(const RopeConfig& rope) {
  const auto& [theta, type, factor, low, high, attention, mscale, mscale_all, fast, slow, truncate, original, partial] =
      rope;
  return {{"rope_theta", theta},
          {"rope_type", type},
          {"factor", factor},
          {"low_freq_factor", low},
          {"high_freq_factor", high},
          {"attention_factor", or_null(attention)},
          {"mscale", or_null(mscale)},
          {"mscale_all_dim", or_null(mscale_all)},
          {"beta_fast", fast},
          {"beta_slow", slow},
          {"truncate", truncate},
          {"original_max_position_embeddings", original},
          {"partial_rotary_factor", partial}};
}

}  // namespace

json fields_of(const DecoderConfig& config) {
  const auto& [type, vocabulary, hidden, intermediate, layers, heads, key_heads, head_dim, positions, eps, tied, bias,
               out_bias, mlp_bias, rope, stored_dtype] = config;
  json fields = {{"model_type", type},
                 {"vocab_size", vocabulary},
                 {"hidden_size", hidden},
                 {"intermediate_size", intermediate},
                 {"num_hidden_layers", layers},
                 {"num_attention_heads", heads},
                 {"num_key_value_heads", key_heads},
                 {"head_dim", head_dim},
                 {"max_position_embeddings", positions},
                 {"rms_norm_eps", eps},
                 {"tie_word_embeddings", tied},
                 {"attention_bias", bias},
                 {"attention_out_bias", out_bias},
                 {"mlp_bias", mlp_bias}};
  fields.update(fields_of_rope(rope));
  return fields;
}

}  // namespace peft
