#include "layer.h"

#include <peft/adapters/init.h>

namespace lora {

using torch::Tensor;

LinearLayer::LinearLayer(const peft::Linear& site, const Settings& s, const Initialization& init)
    : scale_(s.scale), dropout_(s.dropout) {
  const auto converted = [&](const Tensor& tensor) { return tensor.to(s.tensor_options).contiguous(); };
  auto a = register_module("lora_A", std::make_shared<torch::nn::Module>());
  auto b = register_module("lora_B", std::make_shared<torch::nn::Module>());
  A_ = a->register_parameter("weight", converted(init.A), /*requires_grad=*/!s.frozen_A);
  B_ = b->register_parameter("weight", converted(init.B));
  if (init.subtracts_from_base) {
    A0_ = A_.detach().clone();
    minus_B0_ = -B_.detach();
  }
  if (!s.bias) return;
  const double bound = 1 / std::sqrt(static_cast<double>(s.rank));
  const int64_t out = site.out_features();
  bias_ = b->register_parameter("bias", s.init == Init::random ? peft::init::uniform({out}, bound, s.tensor_options)
                                                               : peft::init::zeros({out}, s.tensor_options));
}

peft::LowRank LinearLayer::factors() const {
  if (!has_residual_init()) return {A_, B_, scale_};
  return {at::cat({A_, A0_}, 0), at::cat({B_, minus_B0_}, 1), scale_};
}

void LinearLayer::set_factors(const Tensor& A, const Tensor& B) {
  const torch::NoGradGuard no_grad;
  const int64_t r = A_.size(0);
  A_.copy_(A.narrow(0, 0, r));
  B_.copy_(B.narrow(1, 0, r));
  A0_.copy_(A.narrow(0, r, r));
  minus_B0_.copy_(B.narrow(1, r, r));
}

void LinearLayer::correct_gradient() const {
  const torch::NoGradGuard no_grad;
  const Tensor gradient = B_.grad();
  if (!gradient.defined()) return;
  const Tensor square = at::mm(A_, A_.t()) + 1e-8 * at::eye(A_.size(0), A_.options());
  gradient.copy_(at::mm(gradient, at::linalg_pinv(square)) / (scale_ * scale_));
}

Tensor LinearLayer::restore_dropped(const Tensor& y, const Tensor& x, const Tensor& dropped) const {
  if (!has_active_dropout() || !has_residual_init()) return y;
  const auto dtype = x.scalar_type();
  return y.add(at::linear(at::linear(x - dropped, A0_.to(dtype)), minus_B0_.to(dtype)), scale_);
}

Tensor LinearLayer::forward(const Tensor& x, const peft::Next& next) {
  const auto dtype = x.scalar_type();
  const Tensor dropped = has_active_dropout() ? at::dropout(x, dropout_, /*train=*/true) : x;
  const Tensor bias = bias_.defined() ? bias_.to(dtype) : bias_;
  const auto [A, B, scale] = factors();
  const Tensor update = at::linear(at::linear(dropped, A.to(dtype)), B.to(dtype), bias);
  return restore_dropped(next(x).add(update, scale), x, dropped);
}

bool LinearLayer::merge_into(peft::WeightAndBias& weights) const {
  const torch::NoGradGuard guard;
  const auto dtype = weights.weight.scalar_type();
  const auto [A, B, scale] = factors();
  weights.weight.addmm_(B.to(dtype), A.to(dtype), 1, scale);
  if (bias_.defined()) {
    const Tensor bias = bias_.to(dtype) * scale_;
    weights.bias = weights.bias.defined() ? weights.bias + bias : bias;
  }
  return true;
}

std::optional<peft::LowRank> LinearLayer::as_lora() const {
  if (has_active_dropout() || bias_.defined()) return std::nullopt;
  return factors();
}

DoraLayer::DoraLayer(const peft::Linear& site, const Settings& settings, const Initialization& init)
    : LinearLayer(site, settings, init), site_(site), squares_(site.dense(A_.scalar_type()).square().sum(1)) {
  const torch::NoGradGuard no_grad;
  magnitude_ = register_parameter("lora_magnitude_vector", norms().clone());
}

/// Norms of the rows of W + s·B·A, [out], without computing that matrix: ‖w‖² + 2s·(W·Aᵀ)·b + s²·b·(A·Aᵀ)·b.
Tensor DoraLayer::norms() const {
  const torch::NoGradGuard no_grad;
  const auto [A, B, scale] = factors();
  const Tensor weight = site_.dense(A.scalar_type());
  const Tensor cross = (at::mm(weight, A.t()) * B).sum(1), update = (at::mm(B, at::mm(A, A.t())) * B).sum(1);
  return (squares_ + 2 * scale * cross + scale * scale * update).clamp_min(0).sqrt();
}

Tensor DoraLayer::forward(const Tensor& x, const peft::Next& next) {
  const auto dtype = x.scalar_type();
  const Tensor ratio = (magnitude_ / norms()).to(dtype), y = next(x);
  const Tensor dropped = has_active_dropout() ? at::dropout(x, dropout_, /*train=*/true) : x;
  // Dropout also applies to the frozen weight's input, as in HF PEFT; without dropout, y has that product.
  const auto copy = site_.copies().find("bias");
  const Tensor bias = copy == site_.copies().end() ? site_.base_bias() : copy->second;
  const Tensor base = has_active_dropout() ? at::linear(dropped, site_.dense())
                      : bias.defined()     ? y - bias.to(dtype)
                                           : y;
  const auto [A, B, scale] = factors();
  const Tensor update = at::linear(at::linear(dropped, A.to(dtype)), B.to(dtype));
  return restore_dropped(y + (ratio - 1) * base + ratio * update * scale, x, dropped);
}

bool DoraLayer::merge_into(peft::WeightAndBias& weights) const {
  LinearLayer::merge_into(weights);
  const torch::NoGradGuard no_grad;
  const Tensor ratio = magnitude_.to(weights.weight.scalar_type()) / weights.weight.norm(2, 1);
  weights.weight *= ratio.unsqueeze(1);
  return true;
}

namespace {

Tensor initial_embedding_B(const peft::Embedding& site, const Settings& s, bool tied) {
  if (!tied || s.init == Init::random) return peft::init::normal({site.hidden(), s.rank}, 1, s.tensor_options);
  const std::vector<int64_t> of_head{s.rank, site.hidden()};
  return (s.init == Init::gaussian ? peft::init::normal(of_head, 1 / static_cast<double>(s.rank), s.tensor_options)
                                   : peft::init::kaiming_uniform(of_head, s.tensor_options))
      .t()
      .contiguous();
}

}  // namespace

EmbeddingLayer::EmbeddingLayer(const peft::Embedding& site, const Settings& s, bool tied) : scale_(s.scale) {
  A_ = register_parameter("lora_embedding_A", s.init == Init::random
                                                  ? peft::init::normal({s.rank, site.rows()}, 1, s.tensor_options)
                                                  : peft::init::zeros({s.rank, site.rows()}, s.tensor_options));
  B_ = register_parameter("lora_embedding_B", initial_embedding_B(site, s, tied));
}

Tensor EmbeddingLayer::forward(const Tensor& ids, const peft::Next& next) {
  const Tensor y = next(ids);
  const Tensor rows = at::embedding(A_.t(), ids).to(y.scalar_type());
  return y.add(at::linear(rows, B_.to(y.scalar_type())), scale_);
}

bool EmbeddingLayer::merge_into(peft::WeightAndBias& weights) const {
  const torch::NoGradGuard guard;
  const auto dtype = weights.weight.scalar_type();
  weights.weight.addmm_(A_.t().to(dtype), B_.t().to(dtype), 1, scale_);
  return true;
}

Tensor TiedHeadLayer::forward(const Tensor& x, const peft::Next& next) {
  const auto dtype = x.scalar_type();
  const Tensor dropped = has_active_dropout() ? at::dropout(x, dropout_, /*train=*/true) : x;
  const Tensor update = at::linear(at::linear(dropped, embedding_->head_A().to(dtype)), embedding_->head_B().to(dtype));
  return next(x).add(update, scale_);
}

bool TiedHeadLayer::merge_into(peft::WeightAndBias& weights) const {
  const torch::NoGradGuard guard;
  const auto dtype = weights.weight.scalar_type();
  weights.weight.addmm_(embedding_->head_B().to(dtype), embedding_->head_A().to(dtype), 1, scale_);
  return true;
}

std::optional<peft::LowRank> TiedHeadLayer::as_lora() const {
  if (has_active_dropout()) return std::nullopt;
  return peft::LowRank{embedding_->head_A().contiguous(), embedding_->head_B().contiguous(), scale_};
}

}  // namespace lora
