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
  CHECK(errors_of(config) ==
        "a/adapter_config.json: unknown key 'use_dora'; known: r, target_modules, layers_to_transform");
  config["use_dora"] = false;
  config["use_qalora"] = true;
  CHECK(errors_of(config).find("'use_qalora'") != std::string::npos);
  CHECK(errors_of(config).find("'qalora_group_size'") != std::string::npos);
  config["use_qalora"] = false;
  config["r"] = "four";
  CHECK(errors_of(config) == "a/adapter_config.json: 'r' must be an integer, not a string");
  config["r"] = 18446744073709551615ull;
  CHECK(errors_of(config).find("beyond 64 bits") != std::string::npos);
}

TEST_CASE("an array and deep nesting are refused", "[options]") {
  CHECK_THROWS_AS(Document::from_adapter_config("adapter", nlohmann::json::array(), "x.json"), InputError);
  nlohmann::json deep = 1;
  for (int i = 0; i < 100; ++i) deep = nlohmann::json::array({deep});
  CHECK_THROWS_AS(Document::from_adapter_config("adapter", {{"r", deep}}, "x.json"), InputError);
}
