#include <cstdio>

#include "peft/base/format_count.h"
#include "peft/train/parameter_counts.h"

namespace peft {

ParameterCounts count_parameters(const Model& model) {
  ParameterCounts sum;
  for (const auto& [name, tensor] : model.adapter_tensors()) {
    sum.all += tensor.numel();
    if (tensor.requires_grad()) sum.trainable += tensor.numel();
  }
  for (const auto& [name, tensor] : model.frozen()) sum.all += tensor.numel();
  return sum;
}

std::string ParameterCounts::text() const {
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.4f", 100.0 * static_cast<double>(trainable) / static_cast<double>(all));
  return "trainable params: " + format_count(trainable) + " || all params: " + format_count(all) +
         " || trainable%: " + percent;
}

}  // namespace peft
