// Shows that an adapter_config.json written by HF PEFT is read as a table of options: its bookkeeping and disabled
// features are ignored, and every unknown key that could change what the adapter computes is an error with key and
// file.
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/options/document.h"
#include "peft/options/options.h"
#include "support/test.h"

using namespace peft;

namespace {

std::string errors_of(const nlohmann::json& config) {
  Document document = Document::from_adapter_config("adapter", config, "a/adapter_config.json");
  Options in = document.table("adapter");
  int64_t rank = 8;
  StringOrList targets = StringList{};
  std::optional<IntList> layers;
  in.get("r", rank, "h");
  in.get("target_modules", targets, "h");
  in.get("layers_to_transform", layers, "h");
  try {
    document.finish();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

// As HF PEFT 0.21 saves a LoraConfig.
const char* const saved = R"({"task_type": "CAUSAL_LM", "peft_type": "LORA", "auto_mapping": null,
"peft_version": "0.21.0", "base_model_name_or_path": "some/model", "revision": null, "inference_mode": true, "r": 4,
"target_modules": ["q_proj"], "exclude_modules": null, "fan_in_fan_out": false, "bias": "none",
"layers_to_transform": null, "rank_pattern": {}, "megatron_config": null, "megatron_core": "megatron.core",
"loftq_config": {}, "use_dora": false, "use_qalora": false, "qalora_group_size": 16, "kasa_config": null})";

}  // namespace

TEST_CASE("a config that HF PEFT saved is read", "[options]") {
  CHECK(errors_of(nlohmann::json::parse(saved)) == "");
  Document document = Document::from_adapter_config("adapter", nlohmann::json::parse(saved), "x.json");
  int64_t rank = 8;
  StringOrList targets = StringList{};
  document.table("adapter").get("r", rank, "h");
  document.table("adapter").get("target_modules", targets, "h");
  CHECK(rank == 4);
  CHECK(std::get<StringList>(targets) == StringList{"q_proj"});
}

TEST_CASE("an unknown key that changes the computation is refused by name", "[options]") {
  nlohmann::json config = nlohmann::json::parse(saved);
  config["use_dora"] = true;
  CHECK(
      errors_of(config) ==
      "a/adapter_config.json: unknown key 'use_dora' in a file of HF PEFT 0.21.0, which could change what the adapter "
      "computes; if not, pass --ignore-unknown, or set [model] ignore_unknown = true in an experiment");
  config["use_dora"] = false;
  config["use_qalora"] = true;
  CHECK(errors_of(config).find("unknown keys 'qalora_group_size', 'use_qalora' in a file") != std::string::npos);
  config["use_qalora"] = false;
  config["r"] = "four";
  CHECK(errors_of(config) == "a/adapter_config.json: 'r' must be an integer, not a string");
  config["r"] = 18446744073709551615ull;
  CHECK(errors_of(config).find("beyond 64 bits") != std::string::npos);
}

TEST_CASE("a newer field that is off and a runtime_config are ignored", "[options]") {
  nlohmann::json config = nlohmann::json::parse(saved);
  config["peft_version"] = "0.99.0";
  config["newer_config"] = nullptr;
  config["newer_switch"] = false;
  config["newer_table"] = {{"on", false}, {"modules", nlohmann::json::array()}};
  config["runtime_config"] = {{"ephemeral_gpu_offload", true}};
  CHECK(errors_of(config) == "");
  config["newer_table"]["on"] = true;
  CHECK(errors_of(config).find("unknown key 'newer_table' in a file of HF PEFT 0.99.0") != std::string::npos);
}

TEST_CASE("unknown keys can be ignored, and are noted", "[options]") {
  nlohmann::json config = nlohmann::json::parse(saved);
  config["odd"] = 1;
  config["strange"] = "x";
  Document document = Document::from_adapter_config("adapter", config, "a.json", /*ignore_unknown=*/true);
  Options in = document.table("adapter");
  int64_t rank = 8;
  StringOrList targets = StringList{};
  in.get("r", rank, "h");
  in.get("target_modules", targets, "h");
  document.finish();
  CHECK(document.notes() == StringList{"a.json: ignored unknown keys 'odd', 'strange'"});
}

TEST_CASE("what only training needs is noted", "[options]") {
  const auto read = [](const nlohmann::json& more, const std::string& type = "LOKR") {
    nlohmann::json config = {{"peft_type", type}};
    config.update(more);
    Document document = Document::from_adapter_config("adapter", config, "a.json");
    Options in = document.table("adapter");
    double dropout = 0;
    bool init = true;
    int64_t r = 8;
    in.get("rank_dropout", dropout, "h").require(dropout == 0, "is not supported here: must be 0");
    in.get("init_weights", init, "h");
    in.get("r", r, "h").require(r == 8, "is not used");
    Options eva = in.table("eva_config");
    double rho = 2;
    eva.get("rho", rho, "h").require(rho >= 1, "must be 1 or more");
    try {
      document.finish();
    } catch (const InputError& error) {
      return StringList{"error", error.what()};
    }
    return document.notes();
  };
  CHECK(read({{"rank_dropout", 0}, {"init_weights", false}}).empty());
  for (const nlohmann::json& more :
       {nlohmann::json{{"rank_dropout", 0.1}}, nlohmann::json{{"init_weights", "lycoris"}},
        nlohmann::json{{"module_dropout", 0.5}},  // an option that is not even known
        nlohmann::json{{"eva_config", {{"rho", 0.5}}}}, nlohmann::json{{"eva_config", {{"newer", 1}}}}}) {
    const StringList notes = read(more);
    INFO(more.dump());
    REQUIRE(notes.size() == 1);
    CHECK(notes[0].find("it matters only in training") != std::string::npos);
  }
  // Not a probability, not training's, or an initialization that says what is computed.
  CHECK(read({{"rank_dropout", 7}}).at(0) == "error");
  CHECK(read({{"r", 4}}).at(0) == "error");
  CHECK(read({{"r", 4}}, "ADALORA").at(0) != "error");
  CHECK(read({{"init_weights", "bat"}}, "MISS").at(0) == "error");
}

TEST_CASE("an array and deep nesting are refused", "[options]") {
  CHECK_THROWS_AS(Document::from_adapter_config("adapter", nlohmann::json::array(), "x.json"), InputError);
  nlohmann::json deep = 1;
  for (int i = 0; i < 100; ++i) deep = nlohmann::json::array({deep});
  CHECK_THROWS_AS(Document::from_adapter_config("adapter", {{"r", deep}}, "x.json"), InputError);
}
