#include "peft/nn/linear.h"

#include "nn/adapted_linear.h"
#include "ops/matmul.h"

namespace peft {

Linear::Linear(SiteInfo info, int64_t in, int64_t out, bool bias)
    : Site(std::move(info)), in_(in), out_(out), has_bias_(bias) {}
Linear::~Linear() = default;

std::vector<std::string> Linear::parameter_names() const {
  return has_bias_ ? std::vector<std::string>{"weight", "bias"} : std::vector<std::string>{"weight"};
}

Tensor Linear::forward(const Tensor& x) const {
  if (fused() && adapted())
    if (const auto linear = adapted_linear(*this)) return low_rank_linear(x, *linear);
  return apply_layers(x, [this](const Tensor& v) {
    const Tensor copy = active_copy("weight");
    return copy.defined() ? frozen_linear(v, copy, active_bias()) : base_weight()->linear(v, active_bias());
  });
}

}  // namespace peft
