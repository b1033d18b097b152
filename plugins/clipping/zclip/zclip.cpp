// ZClip: scales gradients whose norm is an outlier among those so far (Kumar et al. 2025, arXiv 2504.02507), as the
// authors' zclip package.
#include <torch/torch.h>

#include <cmath>

#include "../scale_to_norm.h"

namespace {

struct ZclipOptions {
  double alpha = 0.97, z_thresh = 2.5, clip_factor = 1, eps = 1e-6;
  std::optional<double> max_norm = 1.0;
  int64_t warmup_steps = 25;
  std::string mode = "zscore", clip_option = "adaptive_scaling";
  bool skip_update_on_spike = false;
};

class Zclip final : public peft::GradientClipping {
 public:
  explicit Zclip(ZclipOptions options) : options_(std::move(options)) {}

 protected:
  double do_clip(const std::vector<peft::ParamGroup>& groups) override {
    const std::vector<torch::Tensor> gradients = peft::gradients(peft::parameters_of(groups));
    const double norm = peft::global_norm(gradients);
    if (!std::isfinite(norm)) return norm;
    if (!started_) {
      collect(norm);
      if (options_.max_norm) scale_to_norm(gradients, norm, *options_.max_norm);
      return norm;
    }
    const std::optional<double> limit = limit_of(norm);
    const double least = std::min(limit.value_or(norm), options_.max_norm.value_or(norm));
    if (norm > least) scale_to_norm(gradients, norm, least);
    if (!limit || !options_.skip_update_on_spike) observe(limit.value_or(norm));
    return norm;
  }

  peft::StateDict do_state_dict() const override {
    peft::StateDict state{{"norms", torch::tensor(norms_, torch::kDouble)}};
    if (started_) state["mean"] = torch::tensor(mean_, torch::kDouble);
    if (started_) state["variance"] = torch::tensor(variance_, torch::kDouble);
    return state;
  }

  void do_load_state_dict(const peft::StateDict& state) override {
    const auto norms = state.find("norms");
    const bool started = state.contains("mean");
    peft::StateDict wanted{{"norms", norms == state.end() ? torch::empty({0}) : torch::empty({norms->second.numel()})}};
    if (started) wanted["mean"] = wanted["variance"] = torch::empty({});
    const std::string problems = peft::describe_mismatch(wanted, state);
    if (!problems.empty()) throw peft::InputError("zclip: the saved state does not fit:" + problems);
    const torch::Tensor saved = norms->second.to(torch::kCPU, torch::kDouble).contiguous();
    norms_.assign(saved.data_ptr<double>(), saved.data_ptr<double>() + saved.numel());
    started_ = started;
    if (started) mean_ = state.at("mean").item<double>(), variance_ = state.at("variance").item<double>();
  }

 private:
  /// Collects the first norms, which initialize mean and variance.
  void collect(double norm) {
    norms_.push_back(norm);
    if (static_cast<int64_t>(norms_.size()) < options_.warmup_steps) return;
    const auto count = static_cast<double>(norms_.size());
    mean_ = variance_ = 0;
    for (const double each : norms_) mean_ += each / count;
    for (const double each : norms_) variance_ += (each - mean_) * (each - mean_) / count;
    norms_.clear();
    started_ = true;
  }
  void observe(double norm) {
    mean_ = options_.alpha * mean_ + (1 - options_.alpha) * norm;
    variance_ = options_.alpha * variance_ + (1 - options_.alpha) * (norm - mean_) * (norm - mean_);
  }
  /// The norm that an outlier is scaled to; nothing if `norm` is not an outlier.
  std::optional<double> limit_of(double norm) const {
    const double deviation = std::sqrt(variance_), bound = options_.z_thresh * deviation;
    if (options_.mode == "percentile") return norm > mean_ + bound ? std::optional(mean_ + bound) : std::nullopt;
    const double z = (norm - mean_) / (deviation + options_.eps);
    if (z <= options_.z_thresh) return std::nullopt;
    if (options_.clip_option == "mean") return mean_;
    return (mean_ + bound * options_.z_thresh / z) * options_.clip_factor;
  }
  ZclipOptions options_;
  std::vector<double> norms_;
  double mean_ = 0, variance_ = 0;
  bool started_ = false;
};

std::unique_ptr<peft::GradientClipping> make(peft::Options& in) {
  ZclipOptions o;
  double max_norm = 1;
  in.get("alpha", o.alpha, "decay of the running mean and variance of the norms")
      .require(o.alpha >= 0 && o.alpha < 1, "must be in [0, 1)");
  in.get("z_thresh", o.z_thresh, "standard deviations above the mean beyond which a norm is an outlier")
      .require(std::isfinite(o.z_thresh) && o.z_thresh > 0, "must be positive");
  in.get("max_norm", max_norm, "maximum norm of any gradient; 0: no maximum")
      .require(std::isfinite(max_norm) && max_norm >= 0, "must be 0 or more");
  if (max_norm == 0)
    o.max_norm.reset();
  else
    o.max_norm = max_norm;
  in.get("warmup_steps", o.warmup_steps, "first steps, which only initialize mean and variance")
      .require(o.warmup_steps > 0, "must be positive");
  in.get("mode", o.mode, "zscore, or percentile: outliers are always scaled to mean + z_thresh · deviation")
      .require(o.mode == "zscore" || o.mode == "percentile", "must be \"zscore\" or \"percentile\"");
  in.get("clip_option", o.clip_option, "norm that zscore scales an outlier to: adaptive_scaling or mean")
      .require(o.clip_option == "adaptive_scaling" || o.clip_option == "mean",
               "must be \"adaptive_scaling\" or \"mean\"");
  in.get("clip_factor", o.clip_factor, "factor of the norm that adaptive_scaling scales to")
      .require(std::isfinite(o.clip_factor) && o.clip_factor > 0, "must be positive");
  in.get("skip_update_on_spike", o.skip_update_on_spike, "exclude outliers from mean and variance");
  in.get("eps", o.eps, "added to the standard deviation, for stability")
      .require(std::isfinite(o.eps) && o.eps > 0, "must be positive");
  return std::make_unique<Zclip>(std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::GradientClipping>("zclip", make); }

}  // namespace

PEFT_PLUGIN("zclip", "1.0.0", add)
