#pragma once

#include "peft/nn/site.h"

namespace peft {

/// y = x·Wᵀ + b, x: [..., in].
class PEFT_API Linear : public Site {
 public:
  Linear(SiteInfo info, int64_t in, int64_t out, bool bias);
  ~Linear() override;
  Tensor forward(const Tensor& x) const;
  int64_t in_features() const { return in_; }
  int64_t out_features() const { return out_; }
  std::vector<std::string> parameter_names() const override;

 private:
  int64_t in_, out_;
  bool has_bias_;
};

}  // namespace peft
