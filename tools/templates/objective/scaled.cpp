// The cross-entropy of the target tokens, times a factor.
#include <peft/plugin.h>

#include <cmath>

namespace {

class Scaled final : public peft::Objective {
 public:
  explicit Scaled(double factor) : factor_(factor) {}

 protected:
  peft::StringList do_formats() const override { return {"messages", "prompt_completion", "text"}; }
  peft::Totals do_totals(const peft::Batch& batch, bool has_virtual_tokens) const override {
    return {static_cast<double>(batch.num_target_tokens(has_virtual_tokens))};
  }
  peft::Tensor do_loss(const peft::Pass& pass, const peft::Totals& step) override {
    return pass.cross_entropy_sum() * (factor_ / step[0]);
  }
  void do_evaluate(const peft::Pass& pass, peft::Sums& sums) const override {
    sums["loss"] += factor_ * pass.cross_entropy_sum().item<double>();
    sums["tokens"] += static_cast<double>(pass.targets().size(0));
  }
  peft::Figures do_figures(const peft::Sums& sums) const override {
    return {{"loss", sums.at("loss") / sums.at("tokens")}};
  }

 private:
  double factor_;
};

std::unique_ptr<peft::Objective> make(peft::Options& in) {
  double factor = 1;
  in.get("factor", factor, "factor of the loss").require(std::isfinite(factor) && factor > 0, "must be positive");
  return std::make_unique<Scaled>(factor);
}

void add(peft::Registry& registry) { registry.add<peft::Objective>("scaled", make); }

}  // namespace

PEFT_PLUGIN("scaled", "0.1.0", add)
