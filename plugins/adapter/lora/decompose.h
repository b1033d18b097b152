#pragma once

#include <torch/types.h>

namespace lora {

/// M ≈ U · diag(S) · Vᵀ.
struct Svd {
  torch::Tensor U, S, V;  ///< [m, k]; [k], descending; [n, k]
};

/// Converts to the dtype of decompositions: fp64 stays, others become fp32.
torch::Tensor widened(const torch::Tensor& tensor);

/// Starting directions of a randomized SVD of M: [min(m, n), q], normal, drawn in fp32 on the CPU.
torch::Tensor random_directions(const torch::Tensor& M, int64_t q);

/// The q largest singular values and their vectors by randomized subspace iteration (Halko et al. 2009, arXiv
/// 0909.4061, algorithms 4.4 and 5.1), as torch.svd_lowrank computes them. `directions`: [min(m, n), q].
Svd svd_lowrank(const torch::Tensor& M, const torch::Tensor& directions, int64_t niter);

}  // namespace lora
