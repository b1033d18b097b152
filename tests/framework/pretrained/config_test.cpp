// Shows that config.json is read in both of transformers' spellings, and that a key that is not implemented and could
// change the computation is an error with its name.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "architecture/read_config.h"
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

TEST_CASE("keys that do not change the computation are ignored") {
  const json harmless = {{"_from_model_config", true},
                         {"keys_to_ignore_at_inference", {"past_key_values"}},
                         {"attn_implementation", "flash_attention_2"},
                         {"_attn_implementation", "sdpa"},
                         {"_attn_implementation_autoset", true},
                         {"bos_token", "<s>"},
                         {"layer_types", {"full_attention", "full_attention"}},
                         {"max_sequence_length", 4096},
                         {"max_window_layers", 2},
                         {"neftune_noise_alpha", 5},
                         {"pretraining_tp", 2},  // splits the same products
                         {"use_cache", true},
                         {"gradient_checkpointing", true},
                         {"unsloth_version", "2025.1"},
                         {"unsloth_fixed", true},
                         {"quantization_config", nullptr},
                         {"rope_theta", 10000},
                         {"rope_scaling", nullptr},
                         {"head_dim", 8},
                         {"hidden_act", "swish"},
                         {"temperature", 0.6},
                         {"top_p", 0.9},
                         {"max_length", 20},
                         {"typical_p", 0.9},
                         {"suppress_tokens", {1, 2}},
                         {"resid_pdrop", 0.0},
                         {"embedding_multiplier", 1.0},
                         {"torch_dtype", "auto"},
                         {"pruned_heads", json::object()}};
  json all = llama();
  for (const auto& [key, value] : harmless.items()) {
    INFO(key);
    json one = llama();
    one[key] = all[key] = value;
    CHECK(error_of(one) == "");
  }
  CHECK(error_of(all) == "");
}

TEST_CASE("the same keys with values that change the computation are refused") {
  CHECK(refused(llama(), "layer_types", {"full_attention", "sliding_attention"}, "sliding_attention"));
  CHECK(refused(llama(), "layer_types", {"full_attention"}, "2 layers"));
  CHECK(refused(llama(), "embedding_multiplier", 12.0, "embedding_multiplier"));
  CHECK(refused(llama(), "resid_pdrop", 0.1, "resid_pdrop"));
  CHECK(refused(llama(), "pruned_heads", {{"0", {1}}}, "pruned_heads"));
  CHECK(refused(llama(), "per_layer_config", {{"0", {{"head_dim", 4}}}}, "per_layer_config"));
}

TEST_CASE("all unknown keys are in one error, and can be ignored") {
  json config = llama();
  config["odd"] = 1;
  config["another"] = "x";
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}, {"stray", 1}};
  CHECK(error_of(config) ==
        "folder: config.json: unknown keys 'rope_scaling.stray', 'another', 'odd', which could change the computation; "
        "if not, pass --ignore-unknown, or set [model] ignore_unknown = true in an experiment");
  const ReadConfig read = read_config(config, "folder", true);
  CHECK(read.config.rope.factor == 2);
  CHECK(read.notes ==
        std::vector<std::string>{"folder: config.json: ignored unknown keys 'rope_scaling.stray', 'another', 'odd'"});
  for (int i = 0; i < 200; ++i) config["odd_" + std::to_string(i)] = 1;
  CHECK(error_of(config).find(" and 153 more") != std::string::npos);
}

TEST_CASE("a dropout of the pretraining is noted") {
  json config = llama();
  config["attention_dropout"] = 0.0;
  CHECK(read_config(config, "folder", false).notes.empty());
  config["attention_dropout"] = 0.1;
  CHECK(read_config(config, "folder", false).notes.at(0).find("'attention_dropout' 0.1 is not applied") !=
        std::string::npos);
}

TEST_CASE("a path to something else says what it is") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "peft_what_is_it_test";
  const auto error = [&](const fs::path& path) -> std::string {
    try {
      open_pretrained(path.string());
    } catch (const InputError& e) {
      return e.what();
    }
    return "";
  };
  const auto make = [&](const char* file) {
    fs::remove_all(folder);
    fs::create_directories((folder / file).parent_path());
    std::ofstream(folder / file) << "{}";
  };
  const auto has = [](const std::string& text, const std::string& part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  make("some.txt");
  has(error(folder), "has no config.json");
  make("snapshots/abc/config.json");
  has(error(folder), "the Hugging Face hub's cache: give " + (folder / "snapshots/abc").string());
  make("weights.gguf");
  has(error(folder), "but a GGUF file: give " + (folder / "weights.gguf").string());
  make("adapter_config.json");
  has(error(folder), "but an adapter");
  make("checkpoint-5/config.json");
  has(error(folder), "checkpoints of a training: give one of them, such as " + (folder / "checkpoint-5").string());
  fs::create_directories(folder / "checkpoint-10");
  std::ofstream(folder / "checkpoint-10/config.json") << "{}";
  has(error(folder), (folder / "checkpoint-10").string());
  make("inside/config.json");
  has(error(folder), "but a folder that does: give " + (folder / "inside").string());
  make("model.safetensors");
  has(error(folder / "model.safetensors"), "is one file of a model; give the folder");
  has(error("HuggingFaceTB/SmolLM2-135M"), "run 'hf download HuggingFaceTB/SmolLM2-135M --local-dir DIR'");
  has(error(folder / "HuggingFaceTB/SmolLM2-135M"), "hf download HuggingFaceTB/SmolLM2-135M");
  CHECK(error(folder / "missing").find("hf download") == std::string::npos);
  fs::remove_all(folder);
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
