// config.json of the Llama family as transformers reads it.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "peft/architecture/config.h"
#include "peft/base/error.h"

namespace peft {

namespace {

using nlohmann::json;

/// Fields that change nothing in the computation, or nothing for a single model in training.
const std::set<std::string> kIgnoredKeys = {"_name_or_path",
                                            "_attn_implementation_autoset",
                                            "architectures",
                                            "attention_dropout",
                                            "bos_token_id",
                                            "eos_token_id",
                                            "pad_token_id",
                                            "unk_token_id",
                                            "sep_token_id",
                                            "decoder_start_token_id",
                                            "initializer_range",
                                            "transformers_version",
                                            "use_cache",
                                            "dtype",
                                            "torch_dtype",
                                            "is_encoder_decoder",
                                            "is_decoder",
                                            "id2label",
                                            "label2id",
                                            "num_labels",
                                            "problem_type",
                                            "return_dict",
                                            "output_attentions",
                                            "output_hidden_states",
                                            "tokenizer_class",
                                            "prefix",
                                            "chunk_size_feed_forward",
                                            "finetuning_task",
                                            "task_specific_params",
                                            "max_length",
                                            "min_length",
                                            "do_sample",
                                            "temperature",
                                            "top_k",
                                            "top_p",
                                            "repetition_penalty",
                                            "length_penalty",
                                            "no_repeat_ngram_size",
                                            "num_beams",
                                            "torchscript",
                                            "use_bfloat16",
                                            "transformers.js_config",
                                            "auto_map",
                                            "unsloth_version",
                                            "unsloth_fixed",
                                            "model_max_length",
                                            "is_llama_config",
                                            "rope_interleaved"};

class Fields {
 public:
  Fields(const json& config, const std::string& name) : config_(config), name_(printable(name, 4096)) {}

  [[noreturn]] void fail(const std::string& message) const { throw InputError(name_ + ": config.json: " + message); }
  bool has(const std::string& key) {
    read_.insert(key);
    const auto it = config_.find(key);
    return it != config_.end() && !it->is_null();
  }
  bool absent(const std::string& key) const { return !config_.contains(key); }
  const json& at(const std::string& key) { return has(key) ? config_.at(key) : null_; }

  int64_t size(const std::string& key, std::optional<int64_t> otherwise = {}) {
    if (!has(key)) {
      if (otherwise) return *otherwise;
      fail("'" + key + "' is missing");
    }
    const json& value = config_.at(key);
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > most)
      fail("'" + key + "' must be a whole number from 1 to " + std::to_string(most));
    return value.get<int64_t>();
  }
  double number(const std::string& key, double otherwise) {
    if (!has(key)) return otherwise;
    const json& value = config_.at(key);
    if (!value.is_number() || !std::isfinite(value.get<double>())) fail("'" + key + "' must be a number");
    return value.get<double>();
  }
  bool flag(const std::string& key, bool otherwise) {
    if (!has(key)) return otherwise;
    if (!config_.at(key).is_boolean()) fail("'" + key + "' must be true or false");
    return config_.at(key).get<bool>();
  }
  std::string text(const std::string& key, const std::string& otherwise) {
    if (!has(key)) return otherwise;
    if (!config_.at(key).is_string()) fail("'" + key + "' must be a string");
    return config_.at(key).get<std::string>();
  }
  /// What was never asked for must say "off", or be known to change nothing.
  void require_known() const {
    for (const auto& [key, value] : config_.items()) {
      const bool off = value.is_null() || value == json(false) || (value.is_structured() && value.empty());
      if (!off && !read_.contains(key) && !kIgnoredKeys.contains(key))
        fail("'" + printable(key) +
             "' is not known here; what may change the mathematics is refused (remove it if it does not)");
    }
  }
  const std::string& name() const { return name_; }

 private:
  const json& config_;
  std::string name_;
  std::set<std::string> read_;
  const json null_;
};

/// "rope_parameters" (v5), or "rope_theta" with "rope_scaling" (v4).
RopeConfig read_rope(Fields& config, double default_theta, int64_t max_positions) {
  RopeConfig rope;
  rope.theta = config.number("rope_theta", default_theta);
  rope.partial_rotary_factor = config.number("partial_rotary_factor", 1);
  const json old_style = config.at("rope_scaling"), new_style = config.at("rope_parameters");
  const json& table = new_style.is_null() ? old_style : new_style;
  const char* key = new_style.is_null() ? "rope_scaling" : "rope_parameters";
  if (!table.is_null()) {
    if (!table.is_object()) config.fail("'" + std::string(key) + "' must be an object");
    Fields in(table, config.name() + ": config.json: " + key);
    rope.theta = in.number("rope_theta", rope.theta);
    const std::string old_type = in.text("type", "default");  // both are read, so that neither is unknown
    rope.type = in.text("rope_type", old_type);
    rope.factor = in.number("factor", 1);
    rope.low_freq_factor = in.number("low_freq_factor", 1);
    rope.high_freq_factor = in.number("high_freq_factor", 4);
    for (auto [name, value] : {std::pair("attention_factor", &rope.attention_factor),
                               {"mscale", &rope.mscale},
                               {"mscale_all_dim", &rope.mscale_all_dim}})
      if (in.has(name)) *value = in.number(name, 0);
    rope.beta_fast = in.number("beta_fast", 32);
    rope.beta_slow = in.number("beta_slow", 1);
    rope.truncate = in.flag("truncate", true);
    rope.original_max_position_embeddings = in.size("original_max_position_embeddings", max_positions);
    rope.partial_rotary_factor = in.number("partial_rotary_factor", rope.partial_rotary_factor);
    in.flag("finetuned", false);
    in.require_known();
  }
  const std::set<std::string> types = {"default", "linear", "llama3", "yarn"};
  if (!types.contains(rope.type))
    config.fail("RoPE scaling '" + printable(rope.type) + "' is not implemented (default, linear, llama3, yarn are)");
  if (rope.theta <= 1 || rope.factor <= 0 || rope.beta_fast <= 0 || rope.beta_slow <= 0 || rope.low_freq_factor <= 0)
    config.fail("the RoPE parameters must be positive, rope_theta above 1");
  if (rope.type == "llama3" && rope.high_freq_factor <= rope.low_freq_factor)
    config.fail("'high_freq_factor' must be above 'low_freq_factor'");
  if (rope.partial_rotary_factor != 1) config.fail("'partial_rotary_factor' other than 1 is not implemented");
  return rope;
}

void read_dtype(Fields& in, DecoderConfig& c) {
  const std::string old_name = in.text("torch_dtype", "float32");
  c.torch_dtype = in.text("dtype", old_name);
}

void require_implemented(Fields& in, const DecoderConfig& c) {
  if (const std::string act = in.text("hidden_act", "silu"); act != "silu")
    in.fail("'hidden_act' " + printable(act) + " is not implemented (silu is)");
  if (in.number("pretraining_tp", 1) != 1) in.fail("'pretraining_tp' other than 1 is not implemented");
  if (in.has("quantization_config")) {
    const json& quantized = in.at("quantization_config");
    const std::string method = quantized.is_object() ? quantized.value("quant_method", json("?")).dump() : "?";
    in.fail("'quantization_config' (" + printable(method) + ") is not implemented; take the unquantised checkpoint");
  }
  // Longer texts than the window would see all of their past here. Mistral has one unless it is said to be null.
  const bool windowed =
      in.flag("use_sliding_window", true) && (in.has("sliding_window") || in.absent("sliding_window"));
  if (windowed && c.model_type == "mistral" && in.size("sliding_window", 4096) < c.max_position_embeddings)
    in.fail("'sliding_window' is not implemented");
}

}  // namespace

DecoderConfig decoder_config(const json& config, const std::string& name) {
  Fields in(config, name);
  if (!config.is_object()) in.fail("must be an object");
  DecoderConfig c;
  c.model_type = in.text("model_type", "");
  const bool llama = c.model_type == "llama", mistral = c.model_type == "mistral";
  if (!llama && !mistral)
    in.fail("model_type '" + printable(c.model_type) + "' is not implemented (llama and mistral are)");
  c.vocab_size = in.size("vocab_size", 32000);
  c.hidden_size = in.size("hidden_size", 4096);
  c.intermediate_size = in.size("intermediate_size", llama ? 11008 : 14336);
  c.num_hidden_layers = in.size("num_hidden_layers", 32);
  c.num_attention_heads = in.size("num_attention_heads", 32);
  c.num_key_value_heads = in.size("num_key_value_heads", llama ? c.num_attention_heads : 8);
  c.max_position_embeddings = in.size("max_position_embeddings", llama ? 2048 : 4096 * 32);
  c.rms_norm_eps = in.number("rms_norm_eps", 1e-6);
  c.tie_word_embeddings = in.flag("tie_word_embeddings", false);
  c.attention_bias = c.attention_out_bias = in.flag("attention_bias", false);
  c.mlp_bias = in.flag("mlp_bias", false);
  if (c.hidden_size % c.num_attention_heads != 0 && !in.has("head_dim"))
    in.fail("'hidden_size' must be a multiple of 'num_attention_heads'");
  c.head_dim = in.size("head_dim", c.hidden_size / c.num_attention_heads);
  if (c.head_dim % 2 != 0) in.fail("'head_dim' must be even");
  if (c.head_dim > 65'536) in.fail("'head_dim' must be at most 65536");
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    in.fail("'num_attention_heads' must be a multiple of 'num_key_value_heads'");
  if (c.num_hidden_layers > 10'000) in.fail("'num_hidden_layers' must be at most 10000");
  if (c.rms_norm_eps <= 0) in.fail("'rms_norm_eps' must be positive");
  c.rope = read_rope(in, 10000, c.max_position_embeddings);
  read_dtype(in, c);
  require_implemented(in, c);
  in.require_known();
  return c;
}

}  // namespace peft
