// Warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395), as transformers' get_wsd_schedule.
#include "../warmup.h"

namespace {

class Wsd final : public peft::Scheduler {
 public:
  explicit Wsd(Warmup warmup, Warmup decay, std::string type, double min_lr_ratio)
      : warmup_(warmup), decay_(decay), type_(std::move(type)), min_lr_ratio_(min_lr_ratio) {}

 protected:
  double do_lr(int64_t step, int64_t total_steps, double base_lr) const override {
    const int64_t warmup = warmup_.of(total_steps);
    const auto above_min = [&](double factor) { return base_lr * (min_lr_ratio_ + (1 - min_lr_ratio_) * factor); };
    if (step < warmup) return above_min(Warmup::factor(step, warmup));
    const int64_t decay = std::min(decay_.of(total_steps), total_steps - warmup), begin = total_steps - decay;
    if (step < begin) return base_lr;
    const double done = std::min(1.0, progress(step, total_steps, begin));
    return above_min(left(done));
  }

 private:
  Warmup warmup_;
  Warmup decay_;  ///< of the final decay, by the same rule
  std::string type_;
  double min_lr_ratio_;
  double left(double done) const {
    if (type_ == "linear") return 1 - done;
    return type_ == "cosine" ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - std::sqrt(done);
  }
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  Warmup decay{0, 0.1};
  double min_lr_ratio = 0;
  std::string type = "cosine";
  in.get("decay_steps", decay.steps, "steps of the final decay; 0: use decay_ratio")
      .require(decay.steps >= 0, "must be 0 or more");
  in.get("decay_ratio", decay.ratio, "the same as a ratio of all steps")
      .require(decay.ratio >= 0 && decay.ratio <= 1, "must be between 0 and 1");
  in.get("decay_type", type, "linear, cosine or 1-sqrt")
      .require(type == "linear" || type == "cosine" || type == "1-sqrt",
               "must be \"linear\", \"cosine\" or \"1-sqrt\"");
  read_min_lr_ratio(in, min_lr_ratio);
  return std::make_unique<Wsd>(warmup, decay, type, min_lr_ratio);
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("wsd", make); }

}  // namespace

PEFT_PLUGIN("wsd", "1.0.0", add)
