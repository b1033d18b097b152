#include "layer.h"

#include <cmath>

namespace lora {

using torch::Tensor;

namespace {

/// Drawn on the CPU in fp32, whatever the run's dtype and device: all runs of a seed start alike.
Tensor uniform(at::IntArrayRef shape, double bound) {
  return torch::empty(shape, torch::kFloat).uniform_(-bound, bound);
}
Tensor normal(at::IntArrayRef shape, double std) { return torch::empty(shape, torch::kFloat).normal_(0, std); }

/// nn.Linear's own initialization, kaiming_uniform(a = √5), for `in` inputs.
double linear_bound(int64_t in) { return 1 / std::sqrt(static_cast<double>(in)); }

Tensor placed(const Tensor& drawn, const Settings& settings) { return drawn.to(settings.device, settings.dtype); }

bool gaussian(const Settings& settings) { return std::holds_alternative<std::string>(settings.init); }
bool starts_random(const Settings& settings) { return settings.init == peft::BoolOrString(false); }

}  // namespace

LinearLayer::LinearLayer(int64_t in, int64_t out, const Settings& s) : scale_(s.scale), dropout_(s.dropout) {
  const Tensor A =
      gaussian(s) ? normal({s.rank, in}, 1 / static_cast<double>(s.rank)) : uniform({s.rank, in}, linear_bound(in));
  const double bound = linear_bound(s.rank);
  const Tensor B = starts_random(s) ? uniform({out, s.rank}, bound) : torch::zeros({out, s.rank});
  auto a = register_module("lora_A", std::make_shared<torch::nn::Module>());
  auto b = register_module("lora_B", std::make_shared<torch::nn::Module>());
  A_ = a->register_parameter("weight", placed(A, s));
  B_ = b->register_parameter("weight", placed(B, s));
  if (s.bias) {
    const Tensor bias = starts_random(s) ? uniform({out}, bound) : torch::zeros({out});
    bias_ = b->register_parameter("bias", placed(bias, s));
  }
}

Tensor LinearLayer::forward(const Tensor& x, const peft::Next& next) {
  const auto dtype = x.scalar_type();
  const Tensor kept = drops() ? at::dropout(x, dropout_, /*train=*/true) : x;
  const Tensor bias = bias_.defined() ? bias_.to(dtype) : bias_;
  const Tensor update = at::linear(at::linear(kept, A_.to(dtype)), B_.to(dtype), bias);
  return next(x).add(update, scale_);
}

bool LinearLayer::fold(peft::Affine& affine) const {
  const torch::NoGradGuard guard;
  const auto dtype = affine.weight.scalar_type();
  affine.weight.addmm_(B_.to(dtype), A_.to(dtype), 1, scale_);
  if (bias_.defined()) {
    const Tensor bias = bias_.to(dtype) * scale_;
    affine.bias = affine.bias.defined() ? affine.bias + bias : bias;
  }
  return true;
}

std::optional<peft::LowRank> LinearLayer::low_rank() const {
  if (drops() || bias_.defined()) return std::nullopt;
  return peft::LowRank{A_, B_, scale_};
}

EmbeddingLayer::EmbeddingLayer(int64_t rows, int64_t hidden, const Settings& s) : scale_(s.scale) {
  const Tensor A = starts_random(s) ? normal({s.rank, rows}, 1) : torch::zeros({s.rank, rows});
  A_ = register_parameter("lora_embedding_A", placed(A, s));
  B_ = register_parameter("lora_embedding_B", placed(normal({hidden, s.rank}, 1), s));
}

Tensor EmbeddingLayer::forward(const Tensor& ids, const peft::Next& next) {
  const Tensor y = next(ids);
  const Tensor rows = at::embedding(A_.t(), ids).to(y.scalar_type());
  return y.add(at::linear(rows, B_.to(y.scalar_type())), scale_);
}

bool EmbeddingLayer::fold(peft::Affine& affine) const {
  const torch::NoGradGuard guard;
  const auto dtype = affine.weight.scalar_type();
  affine.weight.addmm_(A_.t().to(dtype), B_.t().to(dtype), 1, scale_);
  return true;
}

}  // namespace lora
