// Reads config.json of the Llama family as transformers does.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "files/json_object_reader.h"
#include "peft/architecture/config.h"
#include "peft/base/error.h"

namespace peft {

namespace {

using nlohmann::json;

/// Keys that do not change the computation, or not that of a single model in training.
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

/// Reads members of config.json and records which ones were read.
class ConfigReader {
 public:
  explicit ConfigReader(JsonObjectReader in) : in_(std::move(in)) {}

  [[noreturn]] void fail(const std::string& message) const { in_.fail(message); }
  bool has(const std::string& key) {
    read_.insert(key);
    return in_.has(key);
  }
  double number(const std::string& key, double default_value) { return has(key) ? in_.number(key) : default_value; }
  bool flag(const std::string& key, bool default_value) { return has(key) ? in_.flag(key, false) : default_value; }
  std::string text(const std::string& key, const std::string& default_value) {
    return has(key) ? in_.text(key) : default_value;
  }
  /// An integer from 1 to 2^31 - 1.
  int64_t size(const std::string& key, int64_t default_value) {
    if (!has(key)) return default_value;
    constexpr int64_t max = std::numeric_limits<int32_t>::max();
    const json& value = in_.value().at(key);
    if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > max)
      fail("'" + key + "' must be an integer from 1 to " + std::to_string(max));
    return value.get<int64_t>();
  }
  ConfigReader at(const std::string& key) {
    read_.insert(key);
    return ConfigReader(in_.at(key));
  }
  /// The member without a check of its type; null if it does not exist.
  json value(const std::string& key) { return has(key) ? in_.value().at(key) : json(); }
  /// True if the member exists and is null.
  bool is_null(const std::string& key) { return !has(key) && in_.value().contains(key); }
  /// Throws if a key that was not read could change the computation.
  void check_all_known() const {
    for (const auto& [key, value] : in_.value().items()) {
      const bool disabled = value.is_null() || value == json(false) || (value.is_structured() && value.empty());
      if (!disabled && !read_.contains(key) && !kIgnoredKeys.contains(key))
        fail("'" + printable(key) + "' is not known and could change the computation; remove it if it does not");
    }
  }

 private:
  JsonObjectReader in_;
  std::set<std::string> read_;
};

/// Reads `rope_parameters` (transformers v5), or `rope_theta` and `rope_scaling` (v4).
RopeConfig read_rope(ConfigReader& config, double default_theta, int64_t max_positions) {
  RopeConfig rope;
  rope.theta = config.number("rope_theta", default_theta);
  rope.partial_rotary_factor = config.number("partial_rotary_factor", 1);
  const bool has_v4 = config.has("rope_scaling"), has_v5 = config.has("rope_parameters");
  if (has_v4 || has_v5) {
    ConfigReader in = config.at(has_v5 ? "rope_parameters" : "rope_scaling");
    rope.theta = in.number("rope_theta", rope.theta);
    const std::string old_type = in.text("type", "default");  // reads both, so that both are known
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
    in.check_all_known();
  }
  const std::set<std::string> types = {"default", "linear", "llama3", "yarn"};
  if (!types.contains(rope.type))
    config.fail("RoPE scaling '" + printable(rope.type) +
                "' is not implemented; supported: default, linear, llama3, yarn");
  if (rope.theta <= 1 || rope.factor <= 0 || rope.beta_fast <= 0 || rope.beta_slow <= 0 || rope.low_freq_factor <= 0)
    config.fail("the RoPE parameters must be positive, rope_theta above 1");
  if (rope.type == "llama3" && rope.high_freq_factor <= rope.low_freq_factor)
    config.fail("'high_freq_factor' must be above 'low_freq_factor'");
  if (rope.partial_rotary_factor != 1) config.fail("'partial_rotary_factor' other than 1 is not implemented");
  return rope;
}

void read_dtype(ConfigReader& in, DecoderConfig& c) {
  const std::string old_name = in.text("torch_dtype", "float32");
  c.torch_dtype = in.text("dtype", old_name);
}

void check_implemented(ConfigReader& in, const DecoderConfig& c) {
  if (const std::string act = in.text("hidden_act", "silu"); act != "silu")
    in.fail("'hidden_act' " + printable(act) + " is not implemented; supported: silu");
  if (in.number("pretraining_tp", 1) != 1) in.fail("'pretraining_tp' other than 1 is not implemented");
  if (in.has("quantization_config")) {
    const json quantization = in.value("quantization_config");
    const std::string method = quantization.is_object() ? quantization.value("quant_method", json("?")).dump() : "?";
    in.fail("'quantization_config' (" + printable(method) + ") is not implemented; use the unquantized model");
  }
  // Attention is not limited to a window here, so a window must not be shorter than the longest text. Mistral has a
  // window of 4096 tokens unless `sliding_window` is null.
  const bool windowed = in.flag("use_sliding_window", true) && !in.is_null("sliding_window");
  if (windowed && c.model_type == "mistral" && in.size("sliding_window", 4096) < c.max_position_embeddings)
    in.fail("'sliding_window' is not implemented");
}

}  // namespace

DecoderConfig decoder_config(const json& config, const std::string& name) {
  ConfigReader in(JsonObjectReader(config, printable_path(name) + ": config.json"));
  DecoderConfig c;
  c.model_type = in.text("model_type", "");
  const bool llama = c.model_type == "llama", mistral = c.model_type == "mistral";
  if (!llama && !mistral)
    in.fail("model_type '" + printable(c.model_type) + "' is not implemented; supported: llama, mistral");
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
  check_implemented(in, c);
  in.check_all_known();
  return c;
}

}  // namespace peft
