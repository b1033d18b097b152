#pragma once

#include <peft/site.h>
#include <peft/targets.h>
#include <peft/token_rows.h>

#include <nlohmann/json_fwd.hpp>

namespace lora {

/// HF PEFT's LoraConfig: its names, its defaults.
struct Options {
  int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0;
  bool use_rslora = false;
  peft::IntMap rank_pattern;
  peft::NumberMap alpha_pattern;
  std::string bias = "none";
  bool lora_bias = false;
  bool use_dora = false;
  std::optional<double> loraplus_lr_ratio;
  double loraplus_lr_embedding = 1e-6;
  peft::BoolOrString init_lora_weights = true;
  std::optional<peft::TokenIndices> trainable_token_indices;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};

  /// What multiplies B·A.
  double scale(int64_t rank, double alpha) const;
};

Options read(peft::Options& in);
/// What PEFT's adapter_config.json has for these options beside the targets.
void write_config(const Options& options, nlohmann::ordered_json& config);

}  // namespace lora
