#pragma once

#include <peft/adapters/calibration.h>

#include "options.h"

namespace lora {

/// EVA (Paischer et al. 2024, arXiv 2410.07170): for each site the directions of most variance among its inputs,
/// [rank, in], by incremental SVD over at most `batches` of the data, again and again until they stay (tau). Ranks go
/// where variance is explained best; their sum stays that of `ranks`, and a rank may become 0. As in PEFT's
/// initialize_lora_eva_weights. Kept meanwhile: 2·rho·r rows of inputs' length a site, and one batch's inputs.
std::vector<torch::Tensor> eva_directions(const std::vector<peft::Site*>& sites, const std::vector<int64_t>& ranks,
                                          const EvaOptions& options, int64_t batches, const peft::Calibration& data);

}  // namespace lora
