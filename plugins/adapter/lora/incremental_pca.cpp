#include "incremental_pca.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "decompose.h"

namespace lora {

using torch::Tensor;

namespace {

constexpr int64_t kIterations = 4;
constexpr uint64_t kSeed = 42;

/// Singular values, falling, and right vectors as rows, each with its largest element positive.
std::pair<Tensor, Tensor> largest(const Tensor& rows, int64_t components) {
  auto generator = at::detail::createCPUGenerator(kSeed);
  const Tensor directions = torch::randn({std::min(rows.size(0), rows.size(1)), 2 * components}, generator,
                                         at::TensorOptions().dtype(rows.scalar_type()));
  const auto [U, S, V] = svd_lowrank(rows, directions.to(rows.device()), kIterations);
  const Tensor right = V.t();
  const Tensor signs = right.gather(1, right.abs().argmax(1, /*keepdim=*/true)).sign();
  const int64_t count = std::min(components, S.size(0));
  return {S.narrow(0, 0, count), (right * signs).narrow(0, 0, count)};
}

}  // namespace

/// Mean and variance of all rows so far, these included (Chan, Golub and LeVeque's update).
void IncrementalPca::count(const Tensor& rows) {
  const auto n = static_cast<double>(rows.size(0));
  const Tensor sum = rows.sum(0, /*keepdim=*/false, torch::kDouble), off = rows - sum / n;
  Tensor spread = off.square().sum(0) - off.sum(0).square() / n;
  if (seen_ > 0) {
    const double ratio = seen_ / n;
    spread += variance_ * seen_ + ratio / (seen_ + n) * (mean_ * seen_ / ratio - sum).square();
    mean_ = (mean_ * seen_ + sum) / (seen_ + n);
  } else {
    mean_ = sum / n;
  }
  seen_ += n;
  variance_ = spread / seen_;
}

void IncrementalPca::fit(const Tensor& rows) {
  const torch::NoGradGuard no_grad;
  const Tensor old_mean = mean_;
  const double old = seen_;
  count(rows);
  Tensor centred;
  if (old == 0) {
    centred = rows.clone().sub_(mean_);
  } else {
    const Tensor mean = rows.mean(0);
    const Tensor moved = std::sqrt(old / seen_ * static_cast<double>(rows.size(0))) * (old_mean - mean);
    centred = at::cat({singular_values_.unsqueeze(1) * directions_, rows - mean, moved.unsqueeze(0)});
  }
  std::tie(singular_values_, directions_) = largest(centred, components_);
  explained_ = singular_values_.square() / (variance_ * seen_).sum();
}

}  // namespace lora
