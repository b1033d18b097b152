#include <cmath>
#include <limits>

#include "peft/plugin.h"
#include "peft/train/device_advice.h"

namespace {

struct Fp16Options {
  double init_scale = 65536;
  double growth_factor = 2;
  double backoff_factor = 0.5;
  int64_t growth_interval = 2000;
  double min_scale = 1e-4;
};

/// Dynamic loss scaling with the same steps as torch.amp.GradScaler.
class Fp16 final : public peft::Precision, public peft::DeviceAdvice {
 public:
  // The object is created before rejected options are reported, so the cast may give infinity.
  explicit Fp16(Fp16Options options)
      : options_(options), scale_(torch::tensor(options.init_scale, torch::kFloat64).to(torch::kFloat32)) {}

 protected:
  torch::Dtype do_base_dtype() const override { return torch::kFloat16; }

  std::string do_advice(const torch::Device& device) const override {
    if (!device.is_cpu()) return "";
    return "precision fp16: on a CPU a step takes about 18 times as long as in fp32 (384 s instead of 21 s for the "
           "same "
           "run); use fp32, or bf16 if memory is short";
  }

  void do_backward(const torch::Tensor& loss) override {
    // A zero-dimensional fp32 scale makes the product fp32: an fp16 loss would overflow in it.
    (loss * scale_.to(loss.device())).backward();
    scaled_ = true;
  }

  bool do_unscale_gradients(const std::vector<torch::Tensor>& parameters) override {
    if (!std::exchange(scaled_, false)) return true;  // not from a scaled loss
    const torch::NoGradGuard no_grad;
    const std::vector<torch::Tensor> gradients = peft::gradients(parameters);
    if (gradients.empty()) return true;
    for (const torch::Tensor& gradient : gradients)
      if (gradient.scalar_type() == torch::kFloat16)
        throw peft::PluginError(
            "precision fp16: a trainable parameter is fp16, whose gradients would underflow once unscaled; adapters "
            "must keep their parameters in fp32");
    const torch::Device device = gradients.front().device();
    torch::Tensor overflow = torch::zeros({}, torch::TensorOptions(torch::kFloat32).device(device));
    at::_amp_foreach_non_finite_check_and_unscale_(gradients, overflow,
                                                   scale_.to(torch::kFloat64).reciprocal().to(device, torch::kFloat32));
    overflow = overflow.cpu();
    at::_amp_update_scale_(scale_, growth_tracker_, overflow, options_.growth_factor, options_.backoff_factor,
                           options_.growth_interval);
    const bool finite = overflow.item<float>() == 0;
    if (!finite && scale_.item<double>() < options_.min_scale)
      throw peft::DivergedError(
          "precision fp16: gradients kept overflowing until the loss scale fell below min_scale = " +
          std::to_string(options_.min_scale) +
          "; the weights or the data may contain non-finite values, or the range of fp16 is too small for "
          "this model: try bf16 or fp32");
    return finite;
  }

  peft::StateDict do_state_dict() const override {
    return {{"scale", scale_.clone()}, {"growth_tracker", growth_tracker_.clone()}};
  }

  void do_load_state_dict(const peft::StateDict& state) override {
    const double scale = number(state, "scale", torch::kFloat32);
    const double tracker = number(state, "growth_tracker", torch::kInt32);
    if (state.size() != 2)
      throw peft::InputError("precision fp16: its state must have exactly scale and growth_tracker");
    if (!(scale > 0) || !std::isfinite(scale))
      throw peft::InputError("precision fp16: scale must be positive and finite");
    if (tracker < 0) throw peft::InputError("precision fp16: growth_tracker must not be negative");
    scale_.fill_(scale);
    // If the interval was shortened since, the scale grows after the next step without overflow.
    growth_tracker_.fill_(std::min(tracker, static_cast<double>(options_.growth_interval - 1)));
    scaled_ = false;
  }

 private:
  static double number(const peft::StateDict& state, const std::string& name, torch::Dtype dtype) {
    const auto it = state.find(name);
    if (it == state.end()) throw peft::InputError("precision fp16: its state lacks " + name);
    if (it->second.numel() != 1 || it->second.scalar_type() != dtype)
      throw peft::InputError("precision fp16: " + name + " must be one " + c10::toString(dtype));
    return it->second.item<double>();
  }

  Fp16Options options_;
  torch::Tensor scale_;
  torch::Tensor growth_tracker_ =
      torch::zeros({}, torch::kInt32);  ///< steps without overflow since the scale last changed
  bool scaled_ = false;                 ///< gradients are still scaled
};

std::unique_ptr<peft::Precision> make(peft::Options& in) {
  Fp16Options o;
  constexpr double max_scale = std::numeric_limits<float>::max();
  in.get("init_scale", o.init_scale, "initial loss scale")
      .require(o.init_scale > 0 && o.init_scale <= max_scale, "must be positive and fit fp32");
  in.get("growth_factor", o.growth_factor, "factor by which the scale grows")
      .require(o.growth_factor > 1, "must be above 1");
  in.get("backoff_factor", o.backoff_factor, "factor of the scale after an overflow")
      .require(o.backoff_factor > 0 && o.backoff_factor < 1, "must be between 0 and 1");
  in.get("growth_interval", o.growth_interval, "consecutive steps without overflow before the scale grows")
      .require(o.growth_interval > 0 && o.growth_interval <= std::numeric_limits<int32_t>::max(), "must be positive");
  in.get("min_scale", o.min_scale, "the run fails if overflows reduce the scale below this")
      .require(o.min_scale > 0 && o.min_scale <= o.init_scale, "must be positive and not above init_scale");
  return std::make_unique<Fp16>(o);
}
void add(peft::Registry& registry) { registry.add<peft::Precision>("fp16", make); }

}  // namespace

PEFT_PLUGIN("fp16", "1.1.0", add)
