#include "peft/train/precision.h"

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

Precision::~Precision() = default;

torch::Dtype Precision::base_dtype() const {
  return call_plugin(*this, "base_dtype", [&] { return do_base_dtype(); });
}

torch::Dtype Precision::adapter_dtype() const {
  return call_plugin(*this, "adapter_dtype", [&] { return do_adapter_dtype(); });
}

Tensor Precision::forward(const std::function<Tensor()>& loss) {
  return detail::call_plugin_with_callback(
      *this, "forward", [&](detail::CoreCallback& core) { return do_forward([&] { return core(loss); }); });
}

void Precision::backward(const Tensor& loss) {
  call_plugin(*this, "backward", [&] { do_backward(loss); });
}

bool Precision::unscale_gradients(const std::vector<Tensor>& parameters) {
  return call_plugin(*this, "unscale_gradients", [&] { return do_unscale_gradients(parameters); });
}

void Precision::do_backward(const Tensor& loss) { loss.backward(); }

bool Precision::do_unscale_gradients(const std::vector<Tensor>&) { return true; }

}  // namespace peft
