#pragma once

#include <peft/adapters/targets.h>
#include <peft/adapters/token_layers.h>
#include <peft/nn/site.h>

#include <nlohmann/json_fwd.hpp>

namespace lora {

/// The initialization of A and B, as named by `init_lora_weights`.
enum class Init { uniform, gaussian, random, orthogonal, pissa, olora, loftq, eva, corda, lora_ga };

/// HF PEFT's EvaConfig (Paischer et al. 2024, arXiv 2410.07170).
struct EvaOptions {
  double rho = 2;              ///< a module's rank is at most rho · r
  double tau = 0.99;           ///< cosine of a direction and its value one batch before, above which it has converged
  bool use_label_mask = true;  ///< use only tokens with a label
  int64_t label_mask_value = -100;
  bool whiten = false;
  bool adjust_scaling_factors = true;  ///< change alpha in proportion to the rank
};

/// The options of HF PEFT's CordaConfig (Yang et al. 2024, arXiv 2406.05223) that apply here.
struct CordaOptions {
  std::string corda_method = "ipm";
};

/// HF PEFT's LoraGAConfig (Wang et al. 2024, arXiv 2407.05000).
struct LoraGaOptions {
  std::string direction = "ArB2r", scale = "stable";
  int64_t stable_gamma = 16;
};

/// HF PEFT's LoftQConfig (Li et al. 2023, arXiv 2310.08659).
struct LoftqOptions {
  int64_t loftq_bits = 4, loftq_iter = 1;
};

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
  bool ensure_weight_tying = false;
  bool use_lorafa = false;
  std::optional<double> loraplus_lr_ratio;
  double loraplus_lr_embedding = 1e-6;
  peft::BoolOrString init_lora_weights = true;
  int64_t calibration_batches = 64;
  EvaOptions eva;
  CordaOptions corda;
  LoraGaOptions lora_ga;
  LoftqOptions loftq;
  std::optional<peft::TokenIndices> trainable_token_indices;
  peft::IntPairList layer_replication;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};

  /// Parsed from init_lora_weights.
  Init init = Init::uniform;
  int64_t niter = 0;  ///< "pissa_niter_N": subspace iterations of a randomized SVD; 0: exact SVD

  /// The factor of B·A, which follows from the saved rank and alpha.
  double scale(int64_t rank, double alpha) const;
  /// A residual initialization is saved as additional ranks, as many again, with the alpha that preserves the scale.
  int64_t saved_rank(int64_t rank) const;
  double saved_alpha(double alpha) const;
  /// Whether the initial scale · B·A is subtracted from the base.
  bool has_residual_init() const;
};

Options read(peft::Options& in);
/// Writes these options, except the targets, as HF PEFT's adapter_config.json has them.
void write_config(const Options& options, nlohmann::ordered_json& config);

}  // namespace lora
