// The frozen base and the activations in fp16, trainable parameters in fp32, and a static loss scale.
#include <peft/plugin.h>

#include <cmath>
#include <utility>

namespace {

class Fp16StaticScale final : public peft::Precision {
 public:
  explicit Fp16StaticScale(double scale) : scale_(scale) {}

 protected:
  torch::Dtype do_base_dtype() const override { return torch::kFloat16; }
  void do_backward(const torch::Tensor& loss) override {
    (loss.to(torch::kFloat32) * scale_).backward();
    scaled_ = true;
  }
  bool do_unscale_gradients(const std::vector<torch::Tensor>& parameters) override {
    if (!std::exchange(scaled_, false)) return true;  // not from a scaled loss
    const std::vector<torch::Tensor> gradients = peft::gradients(parameters);
    if (!std::isfinite(peft::global_norm(gradients))) return false;
    if (!gradients.empty()) at::_foreach_div_(gradients, scale_);
    return true;
  }

 private:
  double scale_;
  bool scaled_ = false;
};

std::unique_ptr<peft::Precision> make(peft::Options& in) {
  double scale = 1024;
  in.get("scale", scale, "loss scale, so that small gradients are not rounded to 0")
      .require(std::isfinite(scale) && scale > 0, "must be positive");
  return std::make_unique<Fp16StaticScale>(scale);
}

void add(peft::Registry& registry) { registry.add<peft::Precision>("fp16_static_scale", make); }

}  // namespace

PEFT_PLUGIN("fp16_static_scale", "0.1.0", add)
