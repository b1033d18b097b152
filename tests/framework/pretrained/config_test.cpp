// Shows that config.json is read in both of transformers' spellings, and that a key that is not implemented and could
// change the computation is an error with its name.
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

bool refused(json config, const char* key, const json& value, const std::string& part) {
  config[key] = value;
  const std::string error = error_of(config);
  return error.find(part) != std::string::npos && error.find("folder") != std::string::npos;
}

}  // namespace

TEST_CASE("the spellings of transformers v4 and v5 are equivalent") {
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

TEST_CASE("a value or key that is not implemented is refused by name") {
  CHECK(error_of(llama()).empty());
  CHECK(refused(llama(), "model_type", "qwen2", "qwen2"));
  CHECK(refused(llama(), "hidden_act", "gelu", "gelu"));
  CHECK(refused(llama(), "attn_logit_softcapping", 50.0, "attn_logit_softcapping"));
  CHECK(refused(llama(), "quantization_config", {{"quant_method", "gptq"}}, "gptq"));
  CHECK(refused(llama(), "pretraining_tp", 2, "pretraining_tp"));
  CHECK(refused(llama(), "partial_rotary_factor", 0.5, "partial_rotary_factor"));
  CHECK(refused(llama(), "rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}, "dynamic"));
  CHECK(refused(llama(), "rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}, {"odd", 1}}, "odd"));
  CHECK_FALSE(refused(llama(), "some_switch", false, "some_switch"));  // a disabled feature
  json mistral = llama();
  mistral["model_type"] = "mistral";
  mistral["max_position_embeddings"] = 8192;
  CHECK(refused(mistral, "sliding_window", 4096, "sliding_window"));
  mistral["sliding_window"] = nullptr;
  CHECK(error_of(mistral).empty());
}

TEST_CASE("invalid sizes are refused") {
  CHECK(refused(llama(), "vocab_size", 0, "vocab_size"));
  CHECK(refused(llama(), "hidden_size", 1e30, "hidden_size"));
  CHECK(refused(llama(), "hidden_size", "64", "hidden_size"));
  CHECK(refused(llama(), "num_key_value_heads", 3, "num_key_value_heads"));
  CHECK(refused(llama(), "head_dim", 7, "head_dim"));
  CHECK(refused(llama(), "rms_norm_eps", -1, "rms_norm_eps"));
}

TEST_CASE("a shard index can only name files in its own folder") {
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
      CHECK(std::string(error.what()).find("in the folder of the index") != std::string::npos);
    }
  }
  fs::remove_all(folder);
}

TEST_CASE("an invalid file in a model folder is refused by name") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "peft_folder_test";
  fs::remove_all(folder);
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << llama().dump();
  const auto check_refused = [&](const char* file, const std::string& bytes, const std::string& part) {
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
  check_refused("chat_template.jinja", "{{ \xff }}", "is not UTF-8");
  check_refused("chat_template.jinja", std::string(2 << 20, 'x'), "the limit for this file is 1048576");
  check_refused("generation_config.json", "[]", "must be an object");
  check_refused("tokenizer_config.json", "{", "not JSON");
  check_refused("model.safetensors.index.json", "{}", "has no weight_map");
  fs::create_symlink("tokenizer_config.json", folder / "tokenizer_config.json");
  CHECK_THROWS_AS(open_pretrained(folder.string()), InputError);
  fs::remove_all(folder);
}
