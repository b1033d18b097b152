#include "peft/adapters/calibration.h"

#include <torch/torch.h>

#include "plugin/plugin_call.h"

namespace peft {

Calibrated::~Calibrated() = default;

void Calibrated::calibrate(Model& model, const Calibration& data) {
  detail::call_plugin(*this, "calibrate", [&] { do_calibrate(model, data); });
}

namespace {

class InputRecorder final : public AdapterLayer {
 public:
  explicit InputRecorder(std::function<void(const Tensor&)> on_input) : on_input_(std::move(on_input)) {}
  Tensor forward(const Tensor& x, const Next& next) override {
    on_input_(x.detach());
    return next(x);
  }

 private:
  std::function<void(const Tensor&)> on_input_;
};

/// Adds ∂loss/∂W = (∂loss/∂y)ᵀ · x to `sum` in the backward pass.
class WeightGradientRecorder final : public AdapterLayer {
 public:
  explicit WeightGradientRecorder(Tensor sum) : sum_(std::move(sum)) {}
  Tensor forward(const Tensor& x, const Next& next) override {
    Tensor y = next(x);
    if (!y.requires_grad()) y = y.detach().requires_grad_();  // the first such layer: the graph starts here
    const Tensor rows = x.detach().reshape({-1, x.size(-1)}).to(sum_.scalar_type());
    y.register_hook([sum = sum_, rows](const Tensor& dy) {
      const torch::NoGradGuard no_grad;
      sum.addmm_(dy.reshape({-1, dy.size(-1)}).t().to(sum.scalar_type()), rows);
    });
    return y;
  }

 private:
  Tensor sum_;
};

}  // namespace

InputProbe::InputProbe(std::vector<Site*> sites, const OnInput& on_input) : sites_(std::move(sites)) {
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    layers_.push_back(std::make_shared<InputRecorder>([on_input, i](const Tensor& x) { on_input(i, x); }));
    sites_[i]->attach("probe", layers_.back());
  }
}

InputProbe::~InputProbe() {
  for (std::size_t i = 0; i < sites_.size(); ++i) sites_[i]->detach(layers_[i]);
}

std::vector<Tensor> weight_gradients(const std::vector<Site*>& sites, std::size_t losses,
                                     const std::function<Tensor(std::size_t)>& loss) {
  std::vector<Tensor> sums;
  std::vector<std::shared_ptr<AdapterLayer>> layers;
  for (Site* site : sites) {
    const Tensor weight = site->dense();
    sums.push_back(at::zeros(weight.sizes(), weight.options().dtype(accumulation_dtype(weight))));
    layers.push_back(std::make_shared<WeightGradientRecorder>(sums.back()));
    site->attach("probe", layers.back());
  }
  try {
    for (std::size_t i = 0; i < losses; ++i) loss(i).backward();
  } catch (...) {
    for (std::size_t i = 0; i < sites.size(); ++i) sites[i]->detach(layers[i]);
    throw;
  }
  for (std::size_t i = 0; i < sites.size(); ++i) sites[i]->detach(layers[i]);
  return sums;
}

}  // namespace peft
