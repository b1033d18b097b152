// Supervised fine-tuning: the mean cross-entropy of the target tokens, as TRL's SFTTrainer and transformers' Trainer.
#include <peft/plugin.h>
#include <torch/types.h>

#include <cmath>

namespace {

using torch::Tensor;

class Sft final : public peft::Objective {
 protected:
  peft::StringList do_formats() const override {
    return {"messages", "sharegpt", "alpaca", "prompt_completion", "text"};
  }
  peft::Totals do_totals(const peft::Batch& batch, bool has_virtual_tokens) const override {
    return {static_cast<double>(batch.num_target_tokens(has_virtual_tokens))};
  }
  Tensor do_loss(const peft::Pass& pass, const peft::Totals& step) override {
    return pass.cross_entropy_sum() / step[0];
  }
  void do_evaluate(const peft::Pass& pass, peft::Sums& sums) const override;
  peft::Figures do_figures(const peft::Sums& sums) const override {
    const double tokens = sums.at("tokens"), loss = sums.at("loss") / tokens;
    return {{"loss", loss}, {"perplexity", std::exp(loss)}, {"accuracy", sums.at("correct") / tokens}};
  }
  bool do_is_likelihood() const override { return true; }
};

void Sft::do_evaluate(const peft::Pass& pass, peft::Sums& sums) const {
  const Tensor sum = at::zeros({2}, pass.labels().options().dtype(torch::kDouble));  // loss, tokens predicted correctly
  pass.for_each_logits([&](const Tensor& logits, const Tensor& targets, int64_t) {
    const auto wide = peft::accumulation_dtype(logits);
    sum[0] += at::cross_entropy_loss(logits.to(wide), targets, {}, at::Reduction::Sum);
    sum[1] += (logits.argmax(-1) == targets).sum();
  });
  sums["loss"] += sum[0].item<double>();
  sums["correct"] += sum[1].item<double>();
  sums["tokens"] += static_cast<double>(pass.targets().size(0));
}

std::unique_ptr<peft::Objective> make(peft::Options&) { return std::make_unique<Sft>(); }

void add(peft::Registry& registry) { registry.add<peft::Objective>("sft", make); }

}  // namespace

PEFT_PLUGIN("sft", "1.0.0", add)
