#include "start.h"

#include <peft/adapters/init.h>
#include <peft/base/error.h>
#include <torch/torch.h>

#include <algorithm>

#include "decompose.h"
#include "quantize.h"

namespace lora {

using torch::Tensor;

namespace {

/// A with rows in the odd half of a random rotation of r-space, B in the even half: B·A = 0, and neither is zero
/// (datta0.github.io/posts/rethink-lora-init).
Start orthogonal(const peft::Linear& site, const Settings& s) {
  if (s.rank % 2 != 0)
    throw peft::ConfigError("[adapter] init_lora_weights: \"orthogonal\" needs an even r, and '" +
                            peft::printable(site.path()) + "' has " + std::to_string(s.rank));
  const auto draw = [](int64_t rows, int64_t columns) { return torch::randn({rows, columns}).to(torch::kDouble); };
  using at::indexing::Slice;
  const Tensor Q = std::get<0>(at::linalg_qr(draw(s.rank, s.rank)));
  const Tensor odd = Q.index({Slice(0, at::indexing::None, 2)}), even = Q.index({Slice(1, at::indexing::None, 2)});
  return {at::mm(draw(site.in_features(), s.rank / 2), odd).t() / 10,
          at::mm(draw(s.rank / 2, site.out_features()).t(), even) / 10};
}

/// Meng et al. 2024, arXiv 2404.02948: the weight's largest singular values.
Start pissa(const peft::Linear& site, const Settings& s) {
  require_rank(site, s.rank, "r");
  const Tensor W = widened(site.frozen().weight);
  if (s.niter > 0) {
    const auto [U, S, V] = svd_lowrank(W, random_directions(W, s.rank), s.niter);
    return split(U, S, V, s.scale);
  }
  const auto [U, S, Vh] = at::linalg_svd(W, /*full_matrices=*/false);
  return split(U.narrow(1, 0, s.rank), S.narrow(0, 0, s.rank), Vh.narrow(0, 0, s.rank).t(), s.scale);
}

/// Büyükakyüz 2024, arXiv 2406.01775: the first columns of Q and rows of R of W = Q·R.
Start olora(const peft::Linear& site, const Settings& s) {
  require_rank(site, s.rank, "r");
  const auto [Q, R] = at::linalg_qr(widened(site.frozen().weight));
  return {R.narrow(0, 0, s.rank), Q.narrow(1, 0, s.rank), /*of_base=*/true};
}

/// Li et al. 2023, arXiv 2310.08659: the largest part of what quantisation loses, found in turns with it.
Start loftq(const peft::Linear& site, const Settings& s) {
  require_rank(site, s.rank, "r");
  const Tensor W = widened(site.frozen().weight);
  Tensor part = torch::zeros_like(W);  // what A and B hold of it
  Start start;
  for (int64_t i = 0; i < s.loftq.loftq_iter; ++i) {
    const auto [U, S, Vh] = at::linalg_svd(W - quantized(W - part, s.loftq.loftq_bits), /*full_matrices=*/false);
    start = split(U.narrow(1, 0, s.rank), S.narrow(0, 0, s.rank), Vh.narrow(0, 0, s.rank).t(), s.scale);
    part = at::mm(start.B, start.A) * s.scale;
  }
  return start;
}

Start drawn(const peft::Linear& site, const Settings& s) {
  const int64_t in = site.in_features(), out = site.out_features();
  const Tensor A = s.init == Init::gaussian
                       ? peft::init::normal({s.rank, in}, 1 / static_cast<double>(s.rank), s.tensor_options)
                       : peft::init::kaiming_uniform({s.rank, in}, s.tensor_options);
  return {A, s.init == Init::random ? peft::init::kaiming_uniform({out, s.rank}, s.tensor_options)
                                    : peft::init::zeros({out, s.rank}, s.tensor_options)};
}

}  // namespace

void require_rank(const peft::Linear& site, int64_t needed, const char* what) {
  const int64_t most = std::min(site.in_features(), site.out_features());
  if (needed > most)
    throw peft::ConfigError("[adapter] init_lora_weights: the weight of '" + peft::printable(site.path()) + "' has " +
                            std::to_string(most) + " singular values, and " + what + " asks for " +
                            std::to_string(needed));
}

Start split(const Tensor& U, const Tensor& S, const Tensor& V, double scale) {
  const Tensor root = (S / scale).sqrt();
  return {V.t() * root.unsqueeze(1), U * root, /*of_base=*/true};
}

Start make_start(const peft::Linear& site, const Settings& settings) {
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
      return drawn(site, settings);
  }
}

}  // namespace lora
