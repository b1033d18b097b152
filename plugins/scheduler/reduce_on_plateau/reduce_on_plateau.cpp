// Reduces the learning rate when the evaluation loss stops improving, as torch's ReduceLROnPlateau.
#include <peft/base/error.h>
#include <peft/runtime/scalar_state.h>

#include "../warmup.h"

namespace {

struct PlateauOptions {
  double factor = 0.1, threshold = 1e-4, min_lr = 0, eps = 1e-8;
  int64_t patience = 10, cooldown = 0;
  std::string threshold_mode = "rel";
};

/// Summary of the evaluations so far.
struct Record {
  std::optional<double> best;
  int64_t bad = 0;      ///< evaluations since the best, or since the last reduction
  int64_t resting = 0;  ///< remaining evaluations of the cooldown
  int64_t reductions = 0;
};

class ReduceOnPlateau final : public WarmupScheduler {
 public:
  ReduceOnPlateau(Warmup warmup, PlateauOptions options) : WarmupScheduler(warmup), options_(std::move(options)) {}

 protected:
  bool do_needs_evaluations() const override { return true; }

  void do_on_evaluation(double eval_loss) override {
    if (better(eval_loss))
      record_.best = eval_loss, record_.bad = 0;
    else
      ++record_.bad;
    if (record_.resting > 0) --record_.resting, record_.bad = 0;
    if (record_.bad > options_.patience) {
      ++record_.reductions;
      record_.resting = options_.cooldown, record_.bad = 0;
    }
  }

  peft::StateDict do_state_dict() const override {
    peft::ScalarState state;
    state.put("bad", static_cast<double>(record_.bad));
    state.put("resting", static_cast<double>(record_.resting));
    state.put("reductions", static_cast<double>(record_.reductions));
    if (record_.best) state.put("best", *record_.best);
    return state.state_dict();
  }

  void do_load_state_dict(const peft::StateDict& state) override {
    const peft::ScalarState saved(state);
    Record record{{}, saved.count("bad"), saved.count("resting"), saved.count("reductions")};
    if (saved.has("best")) record.best = saved.at("best");
    if (state.size() != (record.best ? 4U : 3U))
      throw peft::InputError("reduce_on_plateau: the saved state has entries of another scheduler");
    record_ = record;
  }

 private:
  bool better(double loss) const {
    if (std::isnan(loss)) return false;
    if (!record_.best) return true;
    return options_.threshold_mode == "rel" ? loss < *record_.best * (1 - options_.threshold)
                                            : loss < *record_.best - options_.threshold;
  }
  double after(int64_t, int64_t, int64_t, double base_lr) const override {
    double rate = base_lr;
    for (int64_t i = 0; i < record_.reductions; ++i) {
      const double lower = std::max(rate * options_.factor, options_.min_lr);
      if (rate - lower <= options_.eps) break;
      rate = lower;
    }
    return rate;
  }
  PlateauOptions options_;
  Record record_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  PlateauOptions o;
  const auto not_negative = [&](const char* key, double& value, const char* help) {
    in.get(key, value, help).require(std::isfinite(value) && value >= 0, "must be 0 or more");
  };
  in.get("factor", o.factor, "factor of the learning rate at each reduction")
      .require(o.factor > 0 && o.factor < 1, "must be between 0 and 1");
  in.get("patience", o.patience, "evaluations without improvement before the learning rate is reduced")
      .require(o.patience >= 0, "must be 0 or more");
  not_negative("threshold", o.threshold, "minimum decrease of the loss that counts as an improvement");
  in.get("threshold_mode", o.threshold_mode, "rel: relative to the best loss; abs: absolute")
      .require(o.threshold_mode == "rel" || o.threshold_mode == "abs", "must be \"rel\" or \"abs\"");
  in.get("cooldown", o.cooldown, "evaluations after a reduction that are ignored")
      .require(o.cooldown >= 0, "must be 0 or more");
  not_negative("min_lr", o.min_lr, "minimum learning rate");
  not_negative("eps", o.eps, "smaller reductions are ignored");
  return std::make_unique<ReduceOnPlateau>(warmup, std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("reduce_on_plateau", make); }

}  // namespace

PEFT_PLUGIN("reduce_on_plateau", "1.0.0", add)
