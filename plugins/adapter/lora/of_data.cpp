#include "of_data.h"

#include <peft/base/error.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "decompose.h"

namespace lora {

using torch::Tensor;

namespace {

/// What covariances or gradients may take at once; sites that do not fit get another pass over the data.
constexpr int64_t kMostElements = int64_t{1} << 27;  // 512 MiB in fp32

/// Calls `run` with neighbouring sites, as many as fit; `elements`: what each takes.
template <class Run>
void in_parts(const std::vector<peft::Site*>& sites, const std::vector<int64_t>& elements, const Run& run) {
  for (std::size_t begin = 0; begin < sites.size();) {
    int64_t sum = elements[begin];
    std::size_t end = begin + 1;
    while (end < sites.size() && sum + elements[end] <= kMostElements) sum += elements[end++];
    run(begin, std::vector<peft::Site*>(sites.begin() + static_cast<std::ptrdiff_t>(begin),
                                        sites.begin() + static_cast<std::ptrdiff_t>(end)));
    begin = end;
  }
}

const peft::Linear& linear(const peft::Site& site) { return dynamic_cast<const peft::Linear&>(site); }

/// Of each site's inputs, [in, in]. An example's own largest element is its measure, as in PEFT, whose batches hold
/// one.
std::vector<Tensor> covariances(const std::vector<peft::Site*>& sites, std::size_t batches,
                                const peft::Calibration& data) {
  std::vector<Tensor> sums;
  for (const peft::Site* site : sites) {
    const Tensor weight = site->frozen().weight;
    sums.push_back(at::zeros({weight.size(1), weight.size(1)}, widened(weight.narrow(0, 0, 1)).options()));
  }
  std::vector<int64_t> cu_seqlens;
  int64_t examples = 0;
  const peft::InputProbe probe(sites, [&](std::size_t i, const Tensor& x) {
    const Tensor rows = x.reshape({-1, x.size(-1)}).to(sums[i].scalar_type());
    for (std::size_t e = 0; e + 1 < cu_seqlens.size(); ++e) {
      const Tensor own = rows.narrow(0, cu_seqlens[e], cu_seqlens[e + 1] - cu_seqlens[e]),
                   measured = own / own.max().abs();
      sums[i].addmm_(measured.t(), measured);
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

/// The covariance with so much added to its diagonal that its inverse is one, and that inverse.
std::pair<Tensor, Tensor> invertible(const Tensor& covariance) {
  const Tensor one = at::eye(covariance.size(0), covariance.options());
  for (double damp = 0.01;; damp *= 2) {
    const Tensor damped = covariance + one * (covariance.diagonal().mean() * damp), inverse = at::linalg_inv(damped);
    const double error = at::dist(at::mm(damped, inverse), one).item<double>();
    if (error < 0.05) return {damped, inverse};
    if (!std::isfinite(error) || damp > 1e6)
      throw peft::InputError("[adapter] init_lora_weights: \"corda\" finds inputs without a finite covariance");
  }
}

Start corda_start(const peft::Linear& site, const Settings& settings, const Tensor& covariance, bool smallest) {
  require_rank(site, settings.rank, "r");
  const auto [C, inverse] = invertible(covariance);
  const auto [U, S, Vh] = at::linalg_svd(at::mm(widened(site.frozen().weight), C), /*full_matrices=*/false);
  const int64_t at = smallest ? S.size(0) - settings.rank : 0;
  const Tensor V = at::mm(Vh.narrow(0, at, settings.rank), inverse).t();
  return split(U.narrow(1, at, settings.rank), S.narrow(0, at, settings.rank), V, settings.scale);
}

/// Which of the gradient's 2r directions A takes, and which B.
std::pair<Tensor, Tensor> shares(const std::string& direction, int64_t r) {
  const auto range = [](int64_t begin, int64_t end, int64_t step) {
    return at::arange(begin, end, step, torch::kLong);
  };
  if (direction == "ArBr") return {range(1, 2 * r, 2), range(0, 2 * r, 2)};
  if (direction == "A2rBr") return {range(r, 2 * r, 1), range(0, r, 1)};
  if (direction == "ArB2r") return {range(0, r, 1), range(r, 2 * r, 1)};
  const Tensor drawn = at::randperm(2 * r, torch::kLong).narrow(0, 0, r);
  return {drawn, drawn};
}

Start lora_ga_start(const peft::Linear& site, const Settings& settings, const Tensor& gradient,
                    const LoraGaOptions& options) {
  constexpr int64_t kIterations = 4;
  const int64_t r = settings.rank;
  require_rank(site, 2 * r, "2 · r");
  const int64_t q = std::min(4 * r, std::min(gradient.size(0), gradient.size(1)));
  const auto [U, S, V] = svd_lowrank(gradient, random_directions(gradient, q), kIterations);
  auto [of_A, of_B] = shares(options.direction, r);
  of_A = of_A.to(gradient.device()), of_B = of_B.to(gradient.device());
  const Tensor lengths = S.index_select(0, of_B);
  Start start{V.index_select(1, of_A).t(), U.index_select(1, of_B) * lengths, /*of_base=*/true};
  if (options.scale == "stable") {
    start.B = start.B * (std::pow(static_cast<double>(site.out_features()), 0.25) /
                         std::sqrt(static_cast<double>(options.stable_gamma)));
  } else if (options.scale == "weight_svd") {
    const Tensor W = widened(site.frozen().weight);
    const double longest = lengths[0].item<double>();
    const Tensor weights = svd_lowrank(W, random_directions(W, r), kIterations).S;
    if (longest > 0) start.B = start.B * (weights[0].item<double>() / longest);
  } else if (options.scale == "gd_scale") {
    start.A = start.A / settings.scale;
    start.B = start.B / settings.scale;
  }
  return start;
}

}  // namespace

std::vector<Start> corda_starts(const std::vector<peft::Site*>& sites, const std::vector<Settings>& settings,
                                const CordaOptions& options, int64_t batches, const peft::Calibration& data) {
  const torch::NoGradGuard no_grad;
  std::vector<int64_t> elements;
  for (const peft::Site* site : sites) elements.push_back(linear(*site).in_features() * linear(*site).in_features());
  std::vector<Start> initial_factors;
  in_parts(sites, elements, [&](std::size_t begin, const std::vector<peft::Site*>& part) {
    const auto all = covariances(part, std::min(static_cast<std::size_t>(batches), data.batches), data);
    for (std::size_t i = 0; i < part.size(); ++i)
      initial_factors.push_back(
          corda_start(linear(*part[i]), settings[begin + i], all[i], options.corda_method == "kpm"));
  });
  return initial_factors;
}

std::vector<Start> lora_ga_starts(const std::vector<peft::Site*>& sites, const std::vector<Settings>& settings,
                                  const LoraGaOptions& options, int64_t batches, const peft::Calibration& data) {
  const std::size_t losses = std::min(static_cast<std::size_t>(batches), data.batches);
  std::vector<int64_t> elements;
  for (const peft::Site* site : sites) elements.push_back(site->frozen().weight.numel());
  std::vector<Start> initial_factors;
  in_parts(sites, elements, [&](std::size_t begin, const std::vector<peft::Site*>& part) {
    const auto sums = peft::weight_gradients(part, losses, [&](std::size_t i) { return data.loss(data.batch(i)); });
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < part.size(); ++i)
      initial_factors.push_back(
          lora_ga_start(linear(*part[i]), settings[begin + i], sums[i] / static_cast<double>(losses), options));
  });
  return initial_factors;
}

}  // namespace lora
