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
  in.get("use_dora", o.use_dora, "train the length of each row of the weight apart from its direction (DoRA)")
      .require(!o.use_dora || !o.lora_bias, "and lora_bias exclude each other");
  in.get("loraplus_lr_ratio", o.loraplus_lr_ratio, "LoRA+: B learns at this many times the learning rate")
      .require(!o.loraplus_lr_ratio || *o.loraplus_lr_ratio > 0, "must be positive");
  in.get("loraplus_lr_embedding", o.loraplus_lr_embedding, "LoRA+: the learning rate of adapted embeddings")
      .require(o.loraplus_lr_embedding > 0, "must be positive");
  in.get("trainable_token_indices", o.trainable_token_indices,
         "tokens whose rows of the embedding train, too: ids, or for each module by its name's end ids");
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

void write_config(const Options& o, nlohmann::ordered_json& config) {
  using json = nlohmann::ordered_json;
  for (const char* off :
       {"alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "kasa_config", "layer_replication",
        "lora_ga_config", "megatron_config", "monteclora_config", "target_parameters", "use_bdlora", "velora_config"})
    config[off] = nullptr;
  for (const char* off : {"ensure_weight_tying", "fan_in_fan_out", "use_qalora"}) config[off] = false;
  config["loftq_config"] = json::object();
  config["megatron_core"] = "megatron.core";
  config["qalora_group_size"] = 16;
  config["alpha_pattern"] = json::object();
  for (const auto& [key, alpha] : o.alpha_pattern) config["alpha_pattern"][key] = peft::config_number(alpha);
  config["bias"] = o.bias;
  config["init_lora_weights"] = peft::config_value(o.init_lora_weights);
  config["lora_alpha"] = peft::config_number(o.lora_alpha);
  config["lora_bias"] = o.lora_bias;
  config["lora_dropout"] = o.lora_dropout;
  config["r"] = o.r;
  config["rank_pattern"] = json(o.rank_pattern);
  config["trainable_token_indices"] = nullptr;
  if (o.trainable_token_indices)
    std::visit([&](const auto& tokens) { config["trainable_token_indices"] = tokens; }, *o.trainable_token_indices);
  config["use_dora"] = o.use_dora;
  config["use_rslora"] = o.use_rslora;
}

}  // namespace lora
