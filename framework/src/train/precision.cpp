#include "peft/train/precision.h"

#include <stdexcept>

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

Precision::~Precision() = default;

namespace {

torch::Dtype checked(torch::Dtype dtype) {
  if (!c10::isFloatingType(dtype))
    throw std::logic_error(std::string(c10::toString(dtype)) + " is not a floating-point dtype");
  return dtype;
}

}  // namespace

torch::Dtype Precision::base_dtype() const {
  return call_plugin(*this, "base_dtype", [&] { return checked(do_base_dtype()); });
}

torch::Dtype Precision::adapter_dtype() const {
  return call_plugin(*this, "adapter_dtype", [&] { return checked(do_adapter_dtype()); });
}

Tensor Precision::forward(const std::function<Tensor()>& loss) {
  return detail::call_plugin_with_callback(*this, "forward", [&](detail::CoreCallback& core) {
    const Tensor result = do_forward([&] { return core(loss); });
    if (!result.defined() || result.numel() != 1) throw std::logic_error("it must return the loss, one number");
    return result;
  });
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
