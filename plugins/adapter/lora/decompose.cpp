#include "decompose.h"

#include <peft/runtime/tensors.h>
#include <torch/torch.h>

#include <algorithm>

namespace lora {

using torch::Tensor;

Tensor widened(const Tensor& tensor) { return tensor.to(peft::accumulation_dtype(tensor)); }

Tensor random_directions(const Tensor& M, int64_t q) {
  return torch::randn({std::min(M.size(0), M.size(1)), q}, torch::kFloat).to(M.options());
}

Svd svd_lowrank(const Tensor& M, const Tensor& directions, int64_t niter) {
  const bool wide = M.size(0) < M.size(1);
  const Tensor tall = wide ? M.t() : M;
  const auto orthogonal = [](const Tensor& columns) { return std::get<0>(at::linalg_qr(columns)); };
  Tensor Q = orthogonal(at::mm(tall, directions));
  for (int64_t i = 0; i < niter; ++i) Q = orthogonal(at::mm(tall, orthogonal(at::mm(tall.t(), Q))));
  const auto [U, S, Vh] = at::linalg_svd(at::mm(Q.t(), tall), /*full_matrices=*/false);
  const Tensor left = at::mm(Q, U), right = Vh.t();
  return wide ? Svd{right, S, left} : Svd{left, S, right};
}

}  // namespace lora
