#include "nn/mlp.h"

#include "ops/swiglu.h"

namespace peft {

SwigluMlp::SwigluMlp(int64_t hidden, int64_t intermediate, bool bias,
                     const std::function<SiteInfo(const char* name, const char* role)>& site_info)
    : Site(site_info("mlp", "mlp")),
      gate_proj(std::make_shared<Linear>(site_info("mlp.gate_proj", "gate_proj"), hidden, intermediate, bias)),
      up_proj(std::make_shared<Linear>(site_info("mlp.up_proj", "up_proj"), hidden, intermediate, bias)),
      down_proj(std::make_shared<Linear>(site_info("mlp.down_proj", "down_proj"), intermediate, hidden, bias)) {}
SwigluMlp::~SwigluMlp() = default;

Tensor SwigluMlp::forward(const Tensor& input) const {
  return apply_layers(
      input, [&](const Tensor& x) { return down_proj->forward(swiglu(gate_proj->forward(x), up_proj->forward(x))); });
}

}  // namespace peft
