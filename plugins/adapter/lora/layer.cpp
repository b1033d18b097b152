#include "layer.h"

#include <peft/init.h>

namespace lora {

using torch::Tensor;

namespace {

bool gaussian(const Settings& settings) { return std::holds_alternative<std::string>(settings.init); }
bool starts_random(const Settings& settings) { return settings.init == peft::BoolOrString(false); }

}  // namespace

LinearLayer::LinearLayer(const peft::Linear& site, const Settings& s) : scale_(s.scale), dropout_(s.dropout) {
  const int64_t in = site.in_features(), out = site.out_features();
  const Tensor A = gaussian(s) ? peft::init::normal({s.rank, in}, 1 / static_cast<double>(s.rank), s.form)
                               : peft::init::kaiming_uniform({s.rank, in}, s.form);
  const Tensor B =
      starts_random(s) ? peft::init::kaiming_uniform({out, s.rank}, s.form) : peft::init::zeros({out, s.rank}, s.form);
  auto a = register_module("lora_A", std::make_shared<torch::nn::Module>());
  auto b = register_module("lora_B", std::make_shared<torch::nn::Module>());
  A_ = a->register_parameter("weight", A);
  B_ = b->register_parameter("weight", B);
  if (!s.bias) return;
  const double bound = 1 / std::sqrt(static_cast<double>(s.rank));
  bias_ = b->register_parameter(
      "bias", starts_random(s) ? peft::init::uniform({out}, bound, s.form) : peft::init::zeros({out}, s.form));
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

DoraLayer::DoraLayer(const peft::Linear& site, const Settings& settings)
    : LinearLayer(site, settings), site_(site), squares_(site.frozen().weight.to(A_.scalar_type()).square().sum(1)) {
  const torch::NoGradGuard no_grad;
  magnitude_ = register_parameter("lora_magnitude_vector", norms().clone());
}

/// Lengths of the rows of W + s·B·A, [out], without making it: ‖w‖² + 2s·(W·Aᵀ)·b + s²·b·(A·Aᵀ)·b.
Tensor DoraLayer::norms() const {
  const torch::NoGradGuard no_grad;
  const Tensor weight = site_.frozen().weight.to(A_.scalar_type());
  const Tensor mixed = (at::mm(weight, A_.t()) * B_).sum(1), own = (at::mm(B_, at::mm(A_, A_.t())) * B_).sum(1);
  return (squares_ + 2 * scale_ * mixed + scale_ * scale_ * own).clamp_min(0).sqrt();
}

Tensor DoraLayer::forward(const Tensor& x, const peft::Next& next) {
  const auto dtype = x.scalar_type();
  const Tensor stretch = (magnitude_ / norms()).to(dtype), y = next(x);
  const Tensor kept = drops() ? at::dropout(x, dropout_, /*train=*/true) : x;
  // Dropped elements are dropped for the frozen weight too, as in PEFT; without dropout its product is there.
  const auto copy = site_.copies().find("bias");
  const Tensor bias = copy == site_.copies().end() ? site_.frozen().bias : copy->second;
  const Tensor base = drops() ? at::linear(kept, site_.frozen().weight) : bias.defined() ? y - bias.to(dtype) : y;
  const Tensor update = at::linear(at::linear(kept, A_.to(dtype)), B_.to(dtype));
  return y + (stretch - 1) * base + stretch * update * scale_;
}

bool DoraLayer::fold(peft::Affine& affine) const {
  LinearLayer::fold(affine);
  const torch::NoGradGuard no_grad;
  const Tensor stretch = magnitude_.to(affine.weight.scalar_type()) / affine.weight.norm(2, 1);
  affine.weight *= stretch.unsqueeze(1);
  return true;
}

EmbeddingLayer::EmbeddingLayer(const peft::Embedding& site, const Settings& s) : scale_(s.scale) {
  A_ = register_parameter("lora_embedding_A", starts_random(s) ? peft::init::normal({s.rank, site.rows()}, 1, s.form)
                                                               : peft::init::zeros({s.rank, site.rows()}, s.form));
  B_ = register_parameter("lora_embedding_B", peft::init::normal({site.hidden(), s.rank}, 1, s.form));
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
