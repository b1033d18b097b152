#pragma once

#include "peft/nn/site.h"

namespace peft {

/// Normalizes over the last dimension and scales: x [..., hidden].
class PEFT_API Norm : public Site {
 public:
  Norm(SiteInfo info, int64_t hidden);
  ~Norm() override;
  Tensor forward(const Tensor& x) const;
  int64_t hidden() const { return hidden_; }

 protected:
  /// `weight`: the active weight, in the base's dtype.
  virtual Tensor normalize(const Tensor& x, const Tensor& weight) const = 0;

 private:
  int64_t hidden_;
};

/// x / sqrt(mean(x²) + eps) · w, computed in fp32 (Zhang & Sennrich 2019, arXiv 1910.07467).
class PEFT_API RmsNorm final : public Norm {
 public:
  RmsNorm(SiteInfo info, int64_t hidden, double eps);
  ~RmsNorm() override;
  double eps() const { return eps_; }

 protected:
  Tensor normalize(const Tensor& x, const Tensor& weight) const override;

 private:
  double eps_;
};

}  // namespace peft
