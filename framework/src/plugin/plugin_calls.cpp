#include "peft/plugin_calls.h"

#include "plugin/in_plugin.h"

namespace peft {

using detail::in_plugin;

torch::Dtype base_dtype(const Precision& precision) {
  return in_plugin(precision, "base_dtype", [&] { return precision.base_dtype(); });
}

torch::Dtype adapter_dtype(const Precision& precision) {
  return in_plugin(precision, "adapter_dtype", [&] { return precision.adapter_dtype(); });
}

bool needs_evaluations(const Scheduler& scheduler) {
  return in_plugin(scheduler, "needs_evaluations", [&] { return scheduler.needs_evaluations(); });
}

}  // namespace peft
