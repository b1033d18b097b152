#pragma once

#include <peft/adapters/calibration.h>

#include "initialization.h"

namespace lora {

/// CorDA (Yang et al. 2024, arXiv 2406.05223), as in HF PEFT's preprocess_corda: the largest (ipm) or smallest (kpm)
/// singular values of W·C, with C the mean of the examples' xᵀ·x, each x divided by its largest element. Throws
/// ConfigError if a rank does not fit its site.
std::vector<Initialization> corda_init(const std::vector<peft::Site*>& sites, const std::vector<Settings>& settings,
                                       const CordaOptions& options, int64_t batches, const peft::Calibration& data);

/// LoRA-GA (Wang et al. 2024, arXiv 2407.05000), as in HF PEFT's lora_ga_init: singular vectors of the weight's
/// gradient, averaged over the batches.
std::vector<Initialization> lora_ga_init(const std::vector<peft::Site*>& sites, const std::vector<Settings>& settings,
                                         const LoraGaOptions& options, int64_t batches, const peft::Calibration& data);

}  // namespace lora
