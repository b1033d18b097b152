#include "peft/runtime/device.h"

#include <torch/torch.h>

#include <optional>

#include "peft/base/error.h"

namespace peft {

torch::Device choose_device(const std::string& name) {
  if (name == "auto") {
    const auto accelerator = at::getAccelerator(/*checked=*/false);
    const bool available = accelerator && at::globalContext().getAcceleratorHooksInterface(*accelerator).isAvailable();
    return available ? torch::Device(*accelerator, 0) : torch::Device(torch::kCPU);
  }
  std::optional<torch::Device> device;
  try {
    device.emplace(name);
  } catch (const c10::Error&) {
    throw ConfigError("[training] device: unknown device '" + printable(name) +
                      "'; use auto, cpu, cuda, cuda:1, mps or xpu");
  }
  if (device->is_cpu()) return torch::kCPU;
  const auto accelerator = at::getAccelerator(/*checked=*/false);
  if (!accelerator || *accelerator != device->type() ||
      !at::globalContext().getAcceleratorHooksInterface(*accelerator).isAvailable())
    throw ConfigError("[training] device: '" + printable(name) +
                      "' is not available on this machine or in this build of libtorch");
  return device->has_index() ? *device : torch::Device(device->type(), 0);
}

}  // namespace peft
