#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"

namespace peft {

/// Rotary position embedding and its scaling, as in transformers' modeling_rope_utils.
struct RopeConfig {
  double theta = 10000;
  std::string type = "default";  ///< default, linear, llama3, yarn
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;                ///< llama3
  std::optional<double> attention_factor, mscale, mscale_all_dim;  ///< yarn
  double beta_fast = 32, beta_slow = 1;                            ///< yarn
  bool truncate = true;                                            ///< yarn
  int64_t original_max_position_embeddings = 0;                    ///< llama3, yarn
  double partial_rotary_factor = 1;
};

/// Architecture of a decoder-only model, under the names of config.json.
struct DecoderConfig {
  std::string model_type;  ///< "llama" or "mistral"
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  bool attention_bias = false, attention_out_bias = false, mlp_bias = false;
  RopeConfig rope;
  std::string torch_dtype = "float32";  ///< dtype of the stored weights: float32, float16, bfloat16
};

/// Reads config.json in the spelling of transformers v4 or v5. `name` is the model's path in messages. Throws
/// InputError for a model_type that is not implemented, for a key that is not implemented and could change the
/// computation, and for invalid sizes.
PEFT_API DecoderConfig decoder_config(const nlohmann::json& config, const std::string& name);

}  // namespace peft
