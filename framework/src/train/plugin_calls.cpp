#include "peft/train/plugin_calls.h"

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

torch::Dtype base_dtype(const Precision& precision) {
  return call_plugin(precision, "base_dtype", [&] { return precision.base_dtype(); });
}

torch::Dtype adapter_dtype(const Precision& precision) {
  return call_plugin(precision, "adapter_dtype", [&] { return precision.adapter_dtype(); });
}

bool needs_evaluations(const Scheduler& scheduler) {
  return call_plugin(scheduler, "needs_evaluations", [&] { return scheduler.needs_evaluations(); });
}

}  // namespace peft
