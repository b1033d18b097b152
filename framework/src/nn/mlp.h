#pragma once

#include "peft/nn/linear.h"

namespace peft {

/// down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202).
class SwigluMlp final : public Site {
 public:
  /// `site_info`(name, role) describes the site with that name after the layer's path.
  SwigluMlp(int64_t hidden, int64_t intermediate, bool bias,
            const std::function<SiteInfo(const char* name, const char* role)>& site_info);
  ~SwigluMlp() override;
  /// x: [T, hidden] → [T, hidden].
  Tensor forward(const Tensor& x) const;
  std::vector<std::string> parameter_names() const override { return {}; }

  // Never null.
  std::shared_ptr<Linear> gate_proj, up_proj, down_proj;
};

}  // namespace peft
