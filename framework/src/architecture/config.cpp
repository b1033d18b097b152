// Reads config.json of the Llama family as transformers does.
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "architecture/config_keys.h"
#include "architecture/read_config.h"
#include "files/json_object_reader.h"
#include "peft/architecture/config.h"
#include "peft/base/error.h"

namespace peft {

namespace {

using nlohmann::json;

/// Keys that no part of the reader knows, as "rope_scaling.odd".
using UnknownKeys = std::vector<std::string>;

/// Reads members of config.json and records which ones were read.
class ConfigReader {
 public:
  explicit ConfigReader(JsonObjectReader in, UnknownKeys& unknown, std::string prefix = "")
      : in_(std::move(in)), unknown_(unknown), prefix_(std::move(prefix)) {}

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
    return ConfigReader(in_.at(key), unknown_, key + ".");
  }
  /// The member without a check of its type; null if it does not exist.
  json value(const std::string& key) { return has(key) ? in_.value().at(key) : json(); }
  /// True if the member exists and is null.
  bool is_null(const std::string& key) { return !has(key) && in_.value().contains(key); }
  /// Collects the keys that were not read and could change the computation.
  void collect_unknown() const {
    for (const auto& [key, value] : in_.value().items())
      if (!read_.contains(key) && !is_harmless(key, value)) unknown_.push_back(prefix_ + key);
  }

 private:
  JsonObjectReader in_;
  UnknownKeys& unknown_;
  std::string prefix_;
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
    in.collect_unknown();
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

/// Only a name that a weight can have; "auto", null and others say nothing. The files decide.
void read_dtype(ConfigReader& in, DecoderConfig& c) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    const json value = in.value(key);
    if (value == json("float32") || value == json("float16") || value == json("bfloat16"))
      c.torch_dtype = value.get<std::string>();
  }
}

void check_layer_types(ConfigReader& in, const DecoderConfig& c) {
  if (!in.has("layer_types")) return;
  const json types = in.value("layer_types");
  if (!types.is_array() || static_cast<int64_t>(types.size()) != c.num_hidden_layers)
    in.fail("'layer_types' must list the types of the " + std::to_string(c.num_hidden_layers) + " layers");
  for (const json& type : types)
    if (type != json("full_attention"))
      in.fail("'layer_types' with " + printable(type.dump()) + " is not implemented; supported: \"full_attention\"");
}

void check_implemented(ConfigReader& in, const DecoderConfig& c) {
  if (const std::string act = in.text("hidden_act", "silu"); act != "silu" && act != "swish")
    in.fail("'hidden_act' " + printable(act) + " is not implemented; supported: silu");
  check_layer_types(in, c);
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

/// `keys` in quotes, at most 50 of them.
std::string quoted(const UnknownKeys& keys) {
  constexpr std::size_t max_listed = 50;
  std::string text;
  for (std::size_t i = 0; i < std::min(keys.size(), max_listed); ++i)
    text += (i > 0 ? ", '" : "'") + printable(keys[i]) + "'";
  return text + (keys.size() > max_listed ? " and " + std::to_string(keys.size() - max_listed) + " more" : "");
}

DecoderConfig read_decoder(ConfigReader& in);

}  // namespace

ReadConfig read_config(const json& config, const std::string& name, bool ignore_unknown) {
  UnknownKeys unknown;
  const JsonObjectReader object(config, printable_path(name) + ": config.json");
  ConfigReader in(object, unknown);
  ReadConfig result{read_decoder(in), {}};
  in.collect_unknown();
  const bool one = unknown.size() == 1;
  if (!unknown.empty() && !ignore_unknown)
    in.fail(
        std::string("unknown ") + (one ? "key " : "keys ") + quoted(unknown) +
        ", which could change the computation; if not, pass --ignore-unknown, or set [model] ignore_unknown = true in "
        "an experiment");
  if (!unknown.empty()) result.notes.push_back(object.location() + ": ignored unknown keys " + quoted(unknown));
  if (const json dropout = in.value("attention_dropout"); dropout.is_number() && dropout != json(0))
    result.notes.push_back(object.location() + ": 'attention_dropout' " + dropout.dump() +
                           " is not applied, as transformers would in training");
  return result;
}

DecoderConfig decoder_config(const json& config, const std::string& name) {
  return read_config(config, name, false).config;
}

namespace {

DecoderConfig read_decoder(ConfigReader& in) {
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
  return c;
}

}  // namespace
}  // namespace peft
