#pragma once

#include <peft/nn/site.h>

#include "options.h"

namespace lora {

/// The same for every module, and what the patterns say of this one.
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

/// What a linear layer's A and B begin as.
struct Start {
  torch::Tensor A, B;    ///< [r, in], [out, r]
  bool of_base = false;  ///< scale · B·A is taken out of the frozen weight, so that nothing changes at first
};

/// Drawn, or computed from the site's weight; starts of the data are as "true" here. Throws ConfigError where the rank
/// does not suit the site.
Start make_start(const peft::Linear& site, const Settings& settings);

/// B · diag(S / scale) · A, with the root of the lengths on either side. U: [out, r], S: [r], V: [in, r].
Start split(const torch::Tensor& U, const torch::Tensor& S, const torch::Tensor& V, double scale);

/// Throws ConfigError unless the weight has `needed` singular values.
void require_rank(const peft::Linear& site, int64_t needed, const char* what);

}  // namespace lora
