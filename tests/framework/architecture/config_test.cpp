// config.json promises: both of transformers' spellings are understood, and a field that may change the mathematics and
// is not implemented is an error that names it.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "peft/architecture/config.h"
#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "peft/pretrained/open.h"
#include "support/test.h"

using namespace peft;
using nlohmann::json;

namespace {

json llama() {
  return {{"model_type", "llama"},          {"vocab_size", 100},           {"hidden_size", 64},
          {"intermediate_size", 96},        {"num_hidden_layers", 2},      {"num_attention_heads", 8},
          {"num_key_value_heads", 2},       {"hidden_act", "silu"},        {"rms_norm_eps", 1e-5},
          {"max_position_embeddings", 512}, {"tie_word_embeddings", true}, {"architectures", {"LlamaForCausalLM"}}};
}

std::string error_of(const json& config) {
  try {
    decoder_config(config, "folder");
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

bool told(json config, const char* key, const json& value, const std::string& part) {
  config[key] = value;
  const std::string error = error_of(config);
  return error.find(part) != std::string::npos && error.find("folder") != std::string::npos;
}

}  // namespace

TEST_CASE("old and new spelling say the same") {
  json old_style = llama(), new_style = llama();
  old_style["rope_theta"] = 5e5;
  old_style["torch_dtype"] = "bfloat16";
  old_style["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  new_style["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 2.0}};
  new_style["dtype"] = "bfloat16";
  for (const json& config : {old_style, new_style}) {
    const DecoderConfig c = decoder_config(config, "folder");
    CHECK(c.rope.theta == 5e5);
    CHECK(c.rope.type == "linear");
    CHECK(c.rope.factor == 2);
    CHECK(c.torch_dtype == "bfloat16");
    CHECK(c.head_dim == 8);
    CHECK(c.tie_word_embeddings);
  }
}

TEST_CASE("what is not implemented is named") {
  CHECK(error_of(llama()).empty());
  CHECK(told(llama(), "model_type", "qwen2", "qwen2"));
  CHECK(told(llama(), "hidden_act", "gelu", "gelu"));
  CHECK(told(llama(), "attn_logit_softcapping", 50.0, "attn_logit_softcapping"));
  CHECK(told(llama(), "quantization_config", {{"quant_method", "gptq"}}, "gptq"));
  CHECK(told(llama(), "pretraining_tp", 2, "pretraining_tp"));
  CHECK(told(llama(), "partial_rotary_factor", 0.5, "partial_rotary_factor"));
  CHECK(told(llama(), "rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}, "dynamic"));
  CHECK(told(llama(), "rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}, {"odd", 1}}, "odd"));
  CHECK_FALSE(told(llama(), "some_switch", false, "some_switch"));  // off is off
  json mistral = llama();
  mistral["model_type"] = "mistral";
  mistral["max_position_embeddings"] = 8192;
  CHECK(told(mistral, "sliding_window", 4096, "sliding_window"));
  mistral["sliding_window"] = nullptr;
  CHECK(error_of(mistral).empty());
}

TEST_CASE("sizes that cannot be are refused") {
  CHECK(told(llama(), "vocab_size", 0, "vocab_size"));
  CHECK(told(llama(), "hidden_size", 1e30, "hidden_size"));
  CHECK(told(llama(), "hidden_size", "64", "hidden_size"));
  CHECK(told(llama(), "num_key_value_heads", 3, "num_key_value_heads"));
  CHECK(told(llama(), "head_dim", 7, "head_dim"));
  CHECK(told(llama(), "rms_norm_eps", -1, "rms_norm_eps"));
}

TEST_CASE("an index leads nowhere but to files beside it") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "peft_index_test";
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << llama().dump();
  for (const char* shard : {"../model.safetensors", "/etc/passwd", "a/b.safetensors", ".hidden.safetensors", "x.bin"}) {
    std::ofstream(folder / "model.safetensors.index.json") << json{{"weight_map", {{"w", shard}}}}.dump();
    try {
      open_pretrained(folder.string());
      FAIL("opened " << shard);
    } catch (const InputError& error) {
      CHECK(std::string(error.what()).find("beside the index") != std::string::npos);
    }
  }
  fs::remove_all(folder);
}

TEST_CASE("what a folder holds beside its weights is told by its file") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "peft_folder_test";
  fs::remove_all(folder);
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << llama().dump();
  const auto refused = [&](const char* file, const std::string& bytes, const std::string& part) {
    std::ofstream(folder / file) << bytes;
    try {
      open_pretrained(folder.string());
      FAIL("opened with " << file);
    } catch (const InputError& error) {
      INFO(error.what());
      CHECK(std::string(error.what()).find(file) != std::string::npos);
      CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
    fs::remove(folder / file);
  };
  refused("chat_template.jinja", "{{ \xff }}", "is not UTF-8");
  refused("chat_template.jinja", std::string(2 << 20, 'x'), "more than the 1048576");
  refused("generation_config.json", "[]", "must be an object");
  refused("tokenizer_config.json", "{", "not JSON");
  refused("model.safetensors.index.json", "{}", "has no weight_map");
  fs::create_symlink("tokenizer_config.json", folder / "tokenizer_config.json");
  CHECK_THROWS_AS(open_pretrained(folder.string()), InputError);
  fs::remove_all(folder);
}
