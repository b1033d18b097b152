#include "pretrained/gguf/config.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>

#include "peft/base/error.h"
#include "pretrained/gguf/metadata.h"
#include "pretrained/gguf/rope.h"
#include "pretrained/gguf/types.h"

namespace peft {

namespace {

using nlohmann::json;

/// All keys `llama.*` that are read here or do not change the computation.
constexpr std::string_view kKnownKeys[] = {
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "tensor_data_layout",
    "vocab_size",
};

void check_architecture(const GgufMetadata& metadata) {
  const std::string type = metadata.text("general.type", "model");
  if (type != "model") metadata.fail("'general.type' is " + printable(type) + ", not model");
  const std::string architecture = metadata.text("general.architecture");
  if (architecture != "llama")
    metadata.fail("the architecture '" + printable(architecture) +
                  "' is not implemented for GGUF files; supported: llama");
  if (const int64_t parts = metadata.integer("split.count", 0, 1); parts > 1)
    metadata.fail("the file is one of " + std::to_string(parts) +
                  " parts of a split model; merge them first with llama-gguf-split --merge");
}

std::vector<std::string> unknown_keys(const GgufMetadata& metadata) {
  const std::string_view prefix = "llama.";
  std::vector<std::string> unknown;
  for (const auto& [key, value] : metadata.value().items()) {
    const std::string_view view = key;
    if (view.substr(0, prefix.size()) != prefix) continue;
    if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), view.substr(prefix.size())) == std::end(kKnownKeys))
      unknown.push_back(key);
  }
  return unknown;
}

void check_keys(const GgufMetadata& metadata, bool ignore_unknown) {
  const std::vector<std::string> unknown = unknown_keys(metadata);
  constexpr std::size_t max_listed = 50;
  std::string list;
  for (std::size_t i = 0; i < std::min(unknown.size(), max_listed); ++i)
    list += (i > 0 ? ", '" : "'") + printable(unknown[i]) + "'";
  if (!unknown.empty() && !ignore_unknown)
    metadata.fail("unknown keys " + list +
                  ", which could change the computation; if not, pass --ignore-unknown, or set [model] "
                  "ignore_unknown = true in an experiment");
  if (metadata.integer("llama.expert_count", 0, 0) != 0) metadata.fail("mixtures of experts are not implemented");
  if (metadata.has("llama.attention.causal") && metadata.value()["llama.attention.causal"] != true)
    metadata.fail("'llama.attention.causal' other than true is not implemented");
}

int64_t head_dim(const GgufMetadata& metadata) {
  const int64_t hidden = metadata.integer("llama.embedding_length", 1);
  const int64_t heads = metadata.integer("llama.attention.head_count", 1);
  const int64_t size = metadata.integer("llama.attention.key_length", 1, hidden / heads);
  const int64_t rotated = metadata.integer("llama.rope.dimension_count", 1, size);
  if (rotated != size)
    metadata.fail("'llama.rope.dimension_count' is " + std::to_string(rotated) + ", but the head dimension is " +
                  std::to_string(size) + ": partial rotation is not implemented");
  if (metadata.integer("llama.attention.value_length", 1, size) != size)
    metadata.fail("'llama.attention.value_length' other than 'llama.attention.key_length' is not implemented");
  return size;
}

int64_t vocab_size(const GgufMetadata& metadata) {
  if (metadata.has("llama.vocab_size")) return metadata.integer("llama.vocab_size", 1);
  return static_cast<int64_t>(metadata.array("tokenizer.ggml.tokens").size());
}

bool has_tensor(const GgufFile& gguf, const std::string& infix, const std::string& suffix) {
  return std::any_of(gguf.tensors.begin(), gguf.tensors.end(), [&](const GgufTensor& tensor) {
    return tensor.name.find(infix) != std::string::npos && tensor.name.ends_with(suffix);
  });
}

/// The dtype that the matrices would have in a Hugging Face folder: quantized ones are read as fp32.
const char* dtype(const GgufFile& gguf) {
  const auto all = [&](StoredType type) {
    return std::all_of(gguf.tensors.begin(), gguf.tensors.end(),
                       [&](const GgufTensor& tensor) { return tensor.shape.size() < 2 || tensor.type == type; });
  };
  if (all(StoredType::f32)) return "float32";
  return all(StoredType::f16) ? "float16" : all(StoredType::bf16) ? "bfloat16" : "float32";
}

/// Copies the ids of the special tokens.
void add_token_ids(const GgufMetadata& metadata, json& config) {
  for (const auto& [key, field] :
       {std::pair("bos", "bos_token_id"), {"eos", "eos_token_id"}, {"padding", "pad_token_id"}}) {
    const std::string name = "tokenizer.ggml." + std::string(key) + "_token_id";
    if (metadata.has(name)) config[field] = metadata.integer(name, 0);
  }
}

}  // namespace

std::vector<std::string> unknown_keys_of_gguf(const GgufFile& gguf) { return unknown_keys(GgufMetadata(gguf)); }

namespace {

/// "org/name" of a link to the hub, or of such a name itself; "" for other text.
std::string hub_id(std::string text) {
  for (const std::string prefix : {"https://huggingface.co/", "http://huggingface.co/", "https://hf.co/"})
    if (text.starts_with(prefix)) text.erase(0, prefix.size());
  while (text.ends_with('/')) text.pop_back();
  const auto slash = text.find('/');
  const auto is_part = [](const std::string& part) {
    return !part.empty() &&
           part.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == part.npos;
  };
  return slash != text.npos && is_part(text.substr(0, slash)) && is_part(text.substr(slash + 1)) ? text : "";
}

/// Letters and digits in lower case: llama.cpp writes "SmolLM2 135M" for SmolLM2-135M.
std::string plain_name(const std::string& name) {
  std::string plain;
  for (const unsigned char c : name)
    if (std::isalnum(c) != 0) plain += static_cast<char>(std::tolower(c));
  return plain;
}

std::string text_or_empty(const GgufMetadata& metadata, const std::string& key) {
  return metadata.has(key) && metadata.value().at(key).is_string() ? metadata.text(key) : "";
}

}  // namespace

std::string repository_of_gguf(const GgufFile& gguf) {
  const GgufMetadata metadata(gguf);
  for (const char* key : {"general.source.huggingface.repository", "general.source.repo_url", "general.source.url"})
    if (const std::string id = hub_id(text_or_empty(metadata, key)); !id.empty()) return id;
  // The base model is the same model before its quantization, or the one it was fine-tuned from; the names show which.
  const std::string name = plain_name(text_or_empty(metadata, "general.name")), base = "general.base_model.0.";
  const std::string base_name = text_or_empty(metadata, base + "name");
  std::string id = hub_id(text_or_empty(metadata, base + "repo_url"));
  if (id.empty()) {
    std::string last = base_name;
    std::ranges::replace(last, ' ', '-');
    id = hub_id(text_or_empty(metadata, base + "organization") + "/" + last);
  }
  const bool is_same = name.empty() || name == plain_name(id.substr(id.find('/') + 1)) || name == plain_name(base_name);
  return is_same ? id : "";
}

json config_of_gguf(const GgufFile& gguf, bool ignore_unknown) {
  const GgufMetadata metadata(gguf);
  check_architecture(metadata);
  check_keys(metadata, ignore_unknown);
  const int64_t heads = metadata.integer("llama.attention.head_count", 1);
  const double theta = metadata.number("llama.rope.freq_base", 10000);
  if (theta <= 0) metadata.fail("'llama.rope.freq_base' must be positive");
  json config = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"hidden_act", "silu"},
      {"vocab_size", vocab_size(metadata)},
      {"hidden_size", metadata.integer("llama.embedding_length", 1)},
      {"intermediate_size", metadata.integer("llama.feed_forward_length", 1)},
      {"num_hidden_layers", metadata.integer("llama.block_count", 1)},
      {"num_attention_heads", heads},
      {"num_key_value_heads", metadata.integer("llama.attention.head_count_kv", 1, heads)},
      {"head_dim", head_dim(metadata)},
      {"max_position_embeddings", metadata.integer("llama.context_length", 1)},
      {"rms_norm_eps", metadata.number("llama.attention.layer_norm_rms_epsilon")},
      {"rope_theta", theta},
      {"tie_word_embeddings", gguf.find("output.weight") == nullptr},
      {"attention_bias", has_tensor(gguf, ".attn_", ".bias")},
      {"mlp_bias", has_tensor(gguf, ".ffn_", ".bias")},
      {"torch_dtype", dtype(gguf)},
  };
  const json scaling = rope_scaling_of_gguf(gguf, metadata, theta, head_dim(metadata));
  if (!scaling.is_null()) config["rope_scaling"] = scaling;
  add_token_ids(metadata, config);
  return config;
}

json tokenizer_config_of_gguf(const GgufFile& gguf) {
  const GgufMetadata metadata(gguf);
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
  if (metadata.has("tokenizer.chat_template")) config["chat_template"] = metadata.text("tokenizer.chat_template");
  for (const auto& [key, field] :
       {std::pair("bos", "bos_token"), {"eos", "eos_token"}, {"unknown", "unk_token"}, {"padding", "pad_token"}}) {
    const std::string name = "tokenizer.ggml." + std::string(key) + "_token_id";
    if (!metadata.has(name)) continue;
    const json& tokens = metadata.array("tokenizer.ggml.tokens");
    const auto id = static_cast<std::size_t>(metadata.integer(name, 0));
    if (id >= tokens.size() || !tokens[id].is_string())
      metadata.fail("'" + name + "' is " + std::to_string(id) + ", but there are " + std::to_string(tokens.size()) +
                    " tokens");
    config[field] = tokens[id];
  }
  return config;
}

json generation_config_of_gguf(const GgufFile& gguf) {
  const GgufMetadata metadata(gguf);
  json ids = json::array();
  // End of text, of turn, of message: llama.cpp stops at each of them.
  for (const char* key : {"eos", "eot", "eom"}) {
    const std::string name = "tokenizer.ggml." + std::string(key) + "_token_id";
    if (!metadata.has(name)) continue;
    const int64_t id = metadata.integer(name, 0);
    if (std::find(ids.begin(), ids.end(), json(id)) == ids.end()) ids.push_back(id);
  }
  return ids.empty() ? json::object() : json{{"eos_token_id", ids}};
}

}  // namespace peft
