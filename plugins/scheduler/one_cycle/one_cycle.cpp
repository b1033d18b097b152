// One increase and one decrease (Smith & Topin 2018, arXiv 1708.07120), as torch's OneCycleLR; `lr` is its max_lr.
#include <peft/plugin.h>

#include <cmath>
#include <numbers>

namespace {

struct OneCycleOptions {
  double pct_start = 0.3, div_factor = 25, final_div_factor = 1e4;
  std::string anneal_strategy = "cos";
  bool three_phase = false;
};

/// Where a phase ends, and the learning rate there as a ratio of the highest.
struct Phase {
  double end, share;
};

class OneCycle final : public peft::Scheduler {
 public:
  explicit OneCycle(OneCycleOptions options) : options_(std::move(options)) {}

 protected:
  double do_lr(int64_t step, int64_t total_steps, double base_lr) const override {
    const auto at = static_cast<double>(step), total = static_cast<double>(total_steps);
    const double first = 1 / options_.div_factor, last = first / options_.final_div_factor,
                 peak = options_.pct_start * total - 1;
    std::vector<Phase> phases = {{peak, 1}};
    if (options_.three_phase) phases.push_back({2 * options_.pct_start * total - 2, first});
    phases.push_back({total - 1, last});
    Phase from = {0, first};
    for (const Phase& to : phases) {
      if (at <= to.end) return base_lr * between(from, to, at);
      from = to;
    }
    return base_lr * last;
  }

 private:
  double between(const Phase& from, const Phase& to, double at) const {
    const double done = to.end > from.end ? (at - from.end) / (to.end - from.end) : 1;
    if (options_.anneal_strategy == "linear") return from.share + (to.share - from.share) * done;
    return to.share + (from.share - to.share) / 2 * (1 + std::cos(std::numbers::pi * done));
  }
  OneCycleOptions options_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  OneCycleOptions o;
  const auto factor = [&](const char* key, double& value, const char* help) {
    in.get(key, value, help).require(std::isfinite(value) && value >= 1, "must be 1 or more");
  };
  in.get("pct_start", o.pct_start, "ratio of the steps during which the learning rate increases")
      .require(o.pct_start > 0 && o.pct_start < 1, "must be between 0 and 1");
  factor("div_factor", o.div_factor, "the initial learning rate is lr divided by this");
  factor("final_div_factor", o.final_div_factor, "the final learning rate is the initial one divided by this");
  in.get("anneal_strategy", o.anneal_strategy, "cos or linear")
      .require(o.anneal_strategy == "cos" || o.anneal_strategy == "linear", "must be \"cos\" or \"linear\"");
  in.get("three_phase", o.three_phase,
         "decay in two phases: to the initial learning rate, as long as it increased, then to the final one")
      .require(!o.three_phase || o.pct_start <= 0.5, "needs a pct_start of at most 0.5");
  return std::make_unique<OneCycle>(std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("one_cycle", make); }

}  // namespace

PEFT_PLUGIN("one_cycle", "1.0.0", add)
