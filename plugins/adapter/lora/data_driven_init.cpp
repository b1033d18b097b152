#include "data_driven_init.h"

#include <peft/base/error.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "decompose.h"

namespace lora {

using torch::Tensor;

namespace {

/// Maximum size of covariances or gradients at a time; further sites need another pass over the data.
constexpr int64_t kMaxElements = int64_t{1} << 27;  // 512 MiB in fp32

/// Calls `run` for groups of consecutive sites that fit in kMaxElements; `elements`: size of each site.
template <class Run>
void for_site_groups(const std::vector<peft::Site*>& sites, const std::vector<int64_t>& elements, const Run& run) {
  for (std::size_t begin = 0; begin < sites.size();) {
    int64_t sum = elements[begin];
    std::size_t end = begin + 1;
    while (end < sites.size() && sum + elements[end] <= kMaxElements) sum += elements[end++];
    run(begin, std::vector<peft::Site*>(sites.begin() + static_cast<std::ptrdiff_t>(begin),
                                        sites.begin() + static_cast<std::ptrdiff_t>(end)));
    begin = end;
  }
}

const peft::Linear& linear(const peft::Site& site) { return dynamic_cast<const peft::Linear&>(site); }

/// Covariances of each site's inputs, [in, in]. Each example is divided by its largest element, as in HF PEFT, whose
/// batches have one example.
std::vector<Tensor> covariances(const std::vector<peft::Site*>& sites, std::size_t batches,
                                const peft::Calibration& data) {
  std::vector<Tensor> sums;
  for (const peft::Site* site : sites) {
    const Tensor weight = site->dense();
    sums.push_back(at::zeros({weight.size(1), weight.size(1)}, widened(weight.narrow(0, 0, 1)).options()));
  }
  std::vector<int64_t> cu_seqlens;
  int64_t examples = 0;
  const peft::InputProbe probe(sites, [&](std::size_t i, const Tensor& x) {
    const Tensor rows = x.reshape({-1, x.size(-1)}).to(sums[i].scalar_type());
    for (std::size_t e = 0; e + 1 < cu_seqlens.size(); ++e) {
      const Tensor example = rows.narrow(0, cu_seqlens[e], cu_seqlens[e + 1] - cu_seqlens[e]),
                   scaled = example / example.max().abs();
      sums[i].addmm_(scaled.t(), scaled);
    }
  });
  for (std::size_t i = 0; i < batches; ++i) {
    const peft::CalibrationBatch batch = data.batch(i);
    cu_seqlens = batch.row_cu_seqlens;
    examples += static_cast<int64_t>(cu_seqlens.size()) - 1;
    data.loss(batch);
  }
  for (Tensor& sum : sums) sum /= static_cast<double>(examples);
  return sums;
}

/// The covariance with enough added to its diagonal for an accurate inverse, and that inverse.
std::pair<Tensor, Tensor> damp_and_invert(const Tensor& covariance) {
  const Tensor I = at::eye(covariance.size(0), covariance.options());
  for (double damp = 0.01;; damp *= 2) {
    const Tensor damped = covariance + I * (covariance.diagonal().mean() * damp), inverse = at::linalg_inv(damped);
    const double error = at::dist(at::mm(damped, inverse), I).item<double>();
    if (error < 0.05) return {damped, inverse};
    if (!std::isfinite(error) || damp > 1e6)
      throw peft::InputError(
          "[adapter] init_lora_weights: the covariance of inputs is not finite, so \"corda\" cannot be used");
  }
}

Initialization corda_site_init(const peft::Linear& site, const Settings& settings, const Tensor& covariance,
                               bool smallest) {
  check_rank(site, settings.rank, "r");
  const auto [C, inverse] = damp_and_invert(covariance);
  const auto [U, S, Vh] = at::linalg_svd(at::mm(widened(site.dense()), C), /*full_matrices=*/false);
  const int64_t first = smallest ? S.size(0) - settings.rank : 0;
  const Tensor V = at::mm(Vh.narrow(0, first, settings.rank), inverse).t();
  return split_factors(U.narrow(1, first, settings.rank), S.narrow(0, first, settings.rank), V, settings.scale);
}

/// The indices of the gradient's 2r directions that A and B use.
std::pair<Tensor, Tensor> direction_indices(const std::string& direction, int64_t r) {
  const auto range = [](int64_t begin, int64_t end, int64_t step) {
    return at::arange(begin, end, step, torch::kLong);
  };
  if (direction == "ArBr") return {range(1, 2 * r, 2), range(0, 2 * r, 2)};
  if (direction == "A2rBr") return {range(r, 2 * r, 1), range(0, r, 1)};
  if (direction == "ArB2r") return {range(0, r, 1), range(r, 2 * r, 1)};
  const Tensor drawn = at::randperm(2 * r, torch::kLong).narrow(0, 0, r);
  return {drawn, drawn};
}

Initialization lora_ga_site_init(const peft::Linear& site, const Settings& settings, const Tensor& gradient,
                                 const LoraGaOptions& options) {
  constexpr int64_t kIterations = 4;
  const int64_t r = settings.rank;
  check_rank(site, 2 * r, "2 · r");
  const int64_t q = std::min(4 * r, std::min(gradient.size(0), gradient.size(1)));
  const auto [U, S, V] = svd_lowrank(gradient, random_directions(gradient, q), kIterations);
  auto [A_indices, B_indices] = direction_indices(options.direction, r);
  A_indices = A_indices.to(gradient.device());
  B_indices = B_indices.to(gradient.device());
  const Tensor singular_values = S.index_select(0, B_indices);
  Initialization init{V.index_select(1, A_indices).t(), U.index_select(1, B_indices) * singular_values,
                      /*subtracts_from_base=*/true};
  if (options.scale == "stable") {
    init.B = init.B * (std::pow(static_cast<double>(site.out_features()), 0.25) /
                       std::sqrt(static_cast<double>(options.stable_gamma)));
  } else if (options.scale == "weight_svd") {
    const Tensor W = widened(site.dense());
    const double largest = singular_values[0].item<double>();
    const Tensor weights = svd_lowrank(W, random_directions(W, r), kIterations).S;
    if (largest > 0) init.B = init.B * (weights[0].item<double>() / largest);
  } else if (options.scale == "gd_scale") {
    init.A = init.A / settings.scale;
    init.B = init.B / settings.scale;
  }
  return init;
}

}  // namespace

std::vector<Initialization> corda_init(const std::vector<peft::Site*>& sites, const std::vector<Settings>& settings,
                                       const CordaOptions& options, int64_t batches, const peft::Calibration& data) {
  const torch::NoGradGuard no_grad;
  std::vector<int64_t> elements;
  for (const peft::Site* site : sites) elements.push_back(linear(*site).in_features() * linear(*site).in_features());
  std::vector<Initialization> initializations;
  for_site_groups(sites, elements, [&](std::size_t begin, const std::vector<peft::Site*>& group) {
    const auto all = covariances(group, std::min(static_cast<std::size_t>(batches), data.batches), data);
    for (std::size_t i = 0; i < group.size(); ++i)
      initializations.push_back(
          corda_site_init(linear(*group[i]), settings[begin + i], all[i], options.corda_method == "kpm"));
  });
  return initializations;
}

std::vector<Initialization> lora_ga_init(const std::vector<peft::Site*>& sites, const std::vector<Settings>& settings,
                                         const LoraGaOptions& options, int64_t batches, const peft::Calibration& data) {
  const std::size_t losses = std::min(static_cast<std::size_t>(batches), data.batches);
  std::vector<int64_t> elements;
  for (const peft::Site* site : sites) elements.push_back(site->dense().numel());
  std::vector<Initialization> initializations;
  for_site_groups(sites, elements, [&](std::size_t begin, const std::vector<peft::Site*>& group) {
    const auto sums = peft::weight_gradients(group, losses, [&](std::size_t i) { return data.loss(data.batch(i)); });
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < group.size(); ++i)
      initializations.push_back(
          lora_ga_site_init(linear(*group[i]), settings[begin + i], sums[i] / static_cast<double>(losses), options));
  });
  return initializations;
}

}  // namespace lora
