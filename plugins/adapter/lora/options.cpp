#include "options.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace lora {

namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  return text;
}

/// PEFT writes whole numbers as integers.
nlohmann::ordered_json number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

}  // namespace

double Options::scale(int64_t rank, double alpha) const {
  const auto r_ = static_cast<double>(rank);
  return alpha / (use_rslora ? std::sqrt(r_) : r_);
}

Options read(peft::Options& in) {
  Options o;
  in.get("r", o.r, "rank of the update").require(o.r > 0, "must be positive");
  in.get("lora_alpha", o.lora_alpha, "the update is scaled by lora_alpha / r");
  in.get("lora_dropout", o.lora_dropout, "probability of dropping an element of the update's input while training")
      .require(o.lora_dropout >= 0 && o.lora_dropout < 1, "must be at least 0 and below 1");
  peft::read_targets(in, o.targets);
  in.get("rank_pattern", o.rank_pattern, "other ranks: regex of a module name's end = rank")
      .require(std::all_of(o.rank_pattern.begin(), o.rank_pattern.end(), [](const auto& p) { return p.second > 0; }),
               "must give positive ranks");
  in.get("alpha_pattern", o.alpha_pattern, "other alphas: regex of a module name's end = lora_alpha");
  in.get("use_rslora", o.use_rslora, "scale by lora_alpha / sqrt(r) (rank-stabilized LoRA)");
  in.get("bias", o.bias, "biases of the model to train: \"none\", \"all\", or \"lora_only\" (of adapted modules)")
      .require(o.bias == "none" || o.bias == "all" || o.bias == "lora_only",
               "must be \"none\", \"all\" or \"lora_only\"");
  in.get("lora_bias", o.lora_bias, "give B a trainable bias");
  in.get("init_lora_weights", o.init_lora_weights,
         "true: A uniform, B zero; \"gaussian\": A normal, B zero; false: both random, for tests");
  if (auto* name = std::get_if<std::string>(&o.init_lora_weights)) {
    if (lower(*name) != "gaussian")
      in.error("init_lora_weights", "must be true, false or \"gaussian\"");
    else if (o.lora_bias)
      in.error("lora_bias", "needs init_lora_weights to be true or false");
  }
  return o;
}

nlohmann::ordered_json hf_config(const Options& o, const peft::Model& model) {
  using json = nlohmann::ordered_json;
  json alphas = json::object();
  for (const auto& [key, alpha] : o.alpha_pattern) alphas[key] = number(alpha);
  json config = {{"alora_invocation_tokens", nullptr},
                 {"alpha_pattern", alphas},
                 {"arrow_config", nullptr},
                 {"auto_mapping", nullptr},
                 {"base_model_name_or_path", nullptr},
                 {"bias", o.bias},
                 {"corda_config", nullptr},
                 {"ensure_weight_tying", false},
                 {"eva_config", nullptr},
                 {"exclude_modules", nullptr},
                 {"fan_in_fan_out", false},
                 {"inference_mode", true},
                 {"init_lora_weights", nullptr},
                 {"kasa_config", nullptr},
                 {"layer_replication", nullptr},
                 {"layers_pattern", nullptr},
                 {"layers_to_transform", nullptr},
                 {"loftq_config", json::object()},
                 {"lora_alpha", number(o.lora_alpha)},
                 {"lora_bias", o.lora_bias},
                 {"lora_dropout", o.lora_dropout},
                 {"lora_ga_config", nullptr},
                 {"megatron_config", nullptr},
                 {"megatron_core", "megatron.core"},
                 {"modules_to_save", nullptr},
                 {"monteclora_config", nullptr},
                 {"peft_type", "LORA"},
                 {"peft_version", "0.21.0"},
                 {"qalora_group_size", 16},
                 {"r", o.r},
                 {"rank_pattern", json(o.rank_pattern)},
                 {"revision", nullptr},
                 {"target_modules", nullptr},
                 {"target_parameters", nullptr},
                 {"task_type", "CAUSAL_LM"},
                 {"trainable_token_indices", nullptr},
                 {"use_bdlora", nullptr},
                 {"use_dora", false},
                 {"use_qalora", false},
                 {"use_rslora", o.use_rslora},
                 {"velora_config", nullptr}};
  std::visit([&](const auto& value) { config["init_lora_weights"] = value; }, o.init_lora_weights);
  peft::write_targets(model, o.targets, config);
  return config;
}

}  // namespace lora
