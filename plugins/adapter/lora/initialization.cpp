#include "initialization.h"

#include <peft/adapters/init.h>
#include <peft/base/error.h>
#include <torch/torch.h>

#include <algorithm>

#include "decompose.h"
#include "quantize.h"

namespace lora {

using torch::Tensor;

namespace {

/// A in the odd rows of a random r × r rotation, B in the even ones: B·A = 0, although neither is zero
/// (datta0.github.io/posts/rethink-lora-init).
Initialization orthogonal(const peft::Linear& site, const Settings& s) {
  if (s.rank % 2 != 0)
    throw peft::ConfigError("[adapter] init_lora_weights: \"orthogonal\" needs an even r, and '" +
                            peft::printable(site.path()) + "' has " + std::to_string(s.rank));
  const auto normal = [](int64_t rows, int64_t columns) { return torch::randn({rows, columns}).to(torch::kDouble); };
  using at::indexing::Slice;
  const Tensor Q = std::get<0>(at::linalg_qr(normal(s.rank, s.rank)));
  const Tensor odd = Q.index({Slice(0, at::indexing::None, 2)}), even = Q.index({Slice(1, at::indexing::None, 2)});
  return {at::mm(normal(site.in_features(), s.rank / 2), odd).t() / 10,
          at::mm(normal(s.rank / 2, site.out_features()).t(), even) / 10};
}

/// Meng et al. 2024, arXiv 2404.02948: the largest singular values of the weight.
Initialization pissa(const peft::Linear& site, const Settings& s) {
  check_rank(site, s.rank, "r");
  const Tensor W = widened(site.dense());
  if (s.niter > 0) {
    const auto [U, S, V] = svd_lowrank(W, random_directions(W, s.rank), s.niter);
    return split_factors(U, S, V, s.scale);
  }
  const auto [U, S, Vh] = at::linalg_svd(W, /*full_matrices=*/false);
  return split_factors(U.narrow(1, 0, s.rank), S.narrow(0, 0, s.rank), Vh.narrow(0, 0, s.rank).t(), s.scale);
}

/// Büyükakyüz 2024, arXiv 2406.01775: the first columns of Q and rows of R of W = Q·R.
Initialization olora(const peft::Linear& site, const Settings& s) {
  check_rank(site, s.rank, "r");
  const auto [Q, R] = at::linalg_qr(widened(site.dense()));
  return {R.narrow(0, 0, s.rank), Q.narrow(1, 0, s.rank), /*subtracts_from_base=*/true};
}

/// Li et al. 2023, arXiv 2310.08659: a low-rank approximation of the quantization error, alternating with quantization.
Initialization loftq(const peft::Linear& site, const Settings& s) {
  check_rank(site, s.rank, "r");
  const Tensor W = widened(site.dense());
  Tensor low_rank = torch::zeros_like(W);  // scale · B·A
  Initialization result;
  for (int64_t i = 0; i < s.loftq.loftq_iter; ++i) {
    const auto [U, S, Vh] =
        at::linalg_svd(W - quantize_dequantize(W - low_rank, s.loftq.loftq_bits), /*full_matrices=*/false);
    result = split_factors(U.narrow(1, 0, s.rank), S.narrow(0, 0, s.rank), Vh.narrow(0, 0, s.rank).t(), s.scale);
    low_rank = at::mm(result.B, result.A) * s.scale;
  }
  return result;
}

Initialization draw(const peft::Linear& site, const Settings& s) {
  const int64_t in = site.in_features(), out = site.out_features();
  const Tensor A = s.init == Init::gaussian
                       ? peft::init::normal({s.rank, in}, 1 / static_cast<double>(s.rank), s.tensor_options)
                       : peft::init::kaiming_uniform({s.rank, in}, s.tensor_options);
  return {A, s.init == Init::random ? peft::init::kaiming_uniform({out, s.rank}, s.tensor_options)
                                    : peft::init::zeros({out, s.rank}, s.tensor_options)};
}

}  // namespace

void check_rank(const peft::Linear& site, int64_t needed, const char* what) {
  const int64_t rank = std::min(site.in_features(), site.out_features());
  if (needed > rank)
    throw peft::ConfigError("[adapter] init_lora_weights: the weight of '" + peft::printable(site.path()) + "' has " +
                            std::to_string(rank) + " singular values, but " + what + " needs " +
                            std::to_string(needed));
}

Initialization split_factors(const Tensor& U, const Tensor& S, const Tensor& V, double scale) {
  const Tensor root = (S / scale).sqrt();
  return {V.t() * root.unsqueeze(1), U * root, /*subtracts_from_base=*/true};
}

Initialization make_initialization(const peft::Linear& site, const Settings& settings) {
  const torch::NoGradGuard no_grad;
  switch (settings.init) {
    case Init::orthogonal:
      return orthogonal(site, settings);
    case Init::pissa:
      return pissa(site, settings);
    case Init::olora:
      return olora(site, settings);
    case Init::loftq:
      return loftq(site, settings);
    default:
      return draw(site, settings);
  }
}

}  // namespace lora
