#pragma once

#include <peft/adapters/calibration.h>

#include "options.h"

namespace lora {

/// EVA (Paischer et al. 2024, arXiv 2410.07170), as in HF PEFT's initialize_lora_eva_weights: for each site the
/// principal directions of its inputs, [rank, in], by incremental SVD over at most `batches` batches, repeated until
/// the directions converge (tau). The ranks are redistributed by explained variance; their sum does not change, and a
/// rank may become 0. Memory: 2·rho·r rows of the inputs' size per site, and the inputs of one batch.
std::vector<torch::Tensor> eva_directions(const std::vector<peft::Site*>& sites, const std::vector<int64_t>& ranks,
                                          const EvaOptions& options, int64_t batches, const peft::Calibration& data);

}  // namespace lora
