#pragma once

#include "nn/mlp.h"
#include "peft/nn/attention.h"
#include "peft/nn/block.h"
#include "peft/nn/norm.h"

namespace peft {

// The sublayers of Llama and its relatives: x + f(norm(x)). Where norm and projections are frozen or have low-rank
// updates only, both run as one operation that saves less.

/// x + attention(norm(x)).
class PreNormAttention final : public Sublayer {
 public:
  PreNormAttention(std::shared_ptr<RmsNorm> norm, std::shared_ptr<Attention> attention);
  ~PreNormAttention() override;
  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  std::vector<std::shared_ptr<Site>> sites() const override;
  SublayerCost cost(const SiteProfiler& profile) const override;
  Attention* attention() const override { return attention_.get(); }

 private:
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<Attention> attention_;
};

/// x + mlp(norm(x)).
class PreNormMlp final : public Sublayer {
 public:
  PreNormMlp(std::shared_ptr<RmsNorm> norm, std::shared_ptr<SwigluMlp> mlp);
  ~PreNormMlp() override;
  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  std::vector<std::shared_ptr<Site>> sites() const override;
  SublayerCost cost(const SiteProfiler& profile) const override;
  Site* mlp() const override { return mlp_.get(); }

 private:
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<SwigluMlp> mlp_;
};

}  // namespace peft
