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

/// The largest singular values, descending, and right singular vectors as rows, each with its largest element positive.
std::pair<Tensor, Tensor> top_singular_vectors(const Tensor& rows, int64_t components) {
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

/// Updates mean and variance by these rows (Chan, Golub and LeVeque's update).
void IncrementalPca::update_moments(const Tensor& rows) {
  const auto n = static_cast<double>(rows.size(0));
  const Tensor sum = rows.sum(0, /*keepdim=*/false, torch::kDouble), deviation = rows - sum / n;
  Tensor squares = deviation.square().sum(0) - deviation.sum(0).square() / n;
  if (num_rows_ > 0) {
    const double ratio = num_rows_ / n;
    squares += variance_ * num_rows_ + ratio / (num_rows_ + n) * (mean_ * num_rows_ / ratio - sum).square();
    mean_ = (mean_ * num_rows_ + sum) / (num_rows_ + n);
  } else {
    mean_ = sum / n;
  }
  num_rows_ += n;
  variance_ = squares / num_rows_;
}

void IncrementalPca::fit(const Tensor& rows) {
  const torch::NoGradGuard no_grad;
  const Tensor old_mean = mean_;
  const double old_num_rows = num_rows_;
  update_moments(rows);
  Tensor centered;
  if (old_num_rows == 0) {
    centered = rows.clone().sub_(mean_);
  } else {
    const Tensor mean = rows.mean(0);
    const Tensor mean_shift =
        std::sqrt(old_num_rows / num_rows_ * static_cast<double>(rows.size(0))) * (old_mean - mean);
    centered = at::cat({singular_values_.unsqueeze(1) * directions_, rows - mean, mean_shift.unsqueeze(0)});
  }
  std::tie(singular_values_, directions_) = top_singular_vectors(centered, components_);
  explained_variance_ratios_ = singular_values_.square() / (variance_ * num_rows_).sum();
}

}  // namespace lora
