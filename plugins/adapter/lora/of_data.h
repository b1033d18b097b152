#pragma once

#include <peft/adapters/calibration.h>

#include "start.h"

namespace lora {

/// CorDA (Yang et al. 2024, arXiv 2406.05223): the largest (ipm) or smallest (kpm) singular values of W·C, with C the
/// mean of the examples' xᵀ·x, each over its largest element; as PEFT's preprocess_corda. Throws ConfigError where a
/// rank does not suit its site.
std::vector<Start> corda_starts(const std::vector<peft::Site*>& sites, const std::vector<Settings>& settings,
                                const CordaOptions& options, int64_t batches, const peft::Calibration& data);

/// LoRA-GA (Wang et al. 2024, arXiv 2407.05000): singular vectors of the weight's gradient, mean of the batches'; as
/// PEFT's lora_ga_init.
std::vector<Start> lora_ga_starts(const std::vector<peft::Site*>& sites, const std::vector<Settings>& settings,
                                  const LoraGaOptions& options, int64_t batches, const peft::Calibration& data);

}  // namespace lora
