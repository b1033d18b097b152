#include "peft/train/device_advice.h"

#include "plugin/plugin_call.h"

namespace peft {

DeviceAdvice::~DeviceAdvice() = default;

std::string DeviceAdvice::advice(const torch::Device& device) const {
  return detail::call_plugin(*this, "advice", [&] { return do_advice(device); });
}

}  // namespace peft
