#include "peft/nn/norm.h"

#include "ops/rms_norm.h"

namespace peft {

Norm::Norm(SiteInfo info, int64_t hidden) : Site(std::move(info)), hidden_(hidden) {}
Norm::~Norm() = default;

Tensor Norm::forward(const Tensor& x) const {
  return apply_layers(x, [this](const Tensor& v) {
    const Tensor copy = active_copy("weight");
    return normalize(v, copy.defined() ? copy : dense());
  });
}

RmsNorm::RmsNorm(SiteInfo info, int64_t hidden, double eps) : Norm(std::move(info), hidden), eps_(eps) {}
RmsNorm::~RmsNorm() = default;

Tensor RmsNorm::normalize(const Tensor& x, const Tensor& weight) const { return rms_norm(x, weight, eps_); }

}  // namespace peft
