#pragma once

#include <peft/nn/linear.h>

#include "options.h"

namespace lora {

/// The options of one module's layer, with its patterns applied.
struct Settings {
  int64_t rank;
  double scale;
  double dropout;
  bool bias;
  bool frozen_A;  ///< LoRA-FA
  Init init;
  int64_t niter;
  LoftqOptions loftq;
  at::TensorOptions tensor_options;  ///< dtype and device of A and B
};

/// Initial values of a linear layer's A and B.
struct Initialization {
  torch::Tensor A, B;                ///< [r, in], [out, r]
  bool subtracts_from_base = false;  ///< scale · B·A is subtracted from the frozen weight: a residual initialization
};

/// Draws the values, or computes them from the site's weight; data-driven initializations are drawn as for "true".
/// Throws ConfigError if the rank does not fit the site.
Initialization make_initialization(const peft::Linear& site, const Settings& settings);

/// B·A = U · diag(S / scale) · Vᵀ, with the root of the singular values in each factor. U: [out, r], S: [r], V: [in,
/// r].
Initialization split_factors(const torch::Tensor& U, const torch::Tensor& S, const torch::Tensor& V, double scale);

/// Throws ConfigError if the weight has fewer than `needed` singular values; `what`: the option that needs them.
void check_rank(const peft::Linear& site, int64_t needed, const char* what);

}  // namespace lora
