#include <cstdio>

#include "peft/train.h"

namespace peft {

std::string grouped(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0 && digits[i - 1] != '-') text += ',';
    text += digits[i];
  }
  return text;
}

Census census(const Model& model) {
  Census sum;
  for (const auto& [name, tensor] : model.adapter_tensors()) {
    sum.all += tensor.numel();
    if (tensor.requires_grad()) sum.trainable += tensor.numel();
  }
  for (const auto& [name, tensor] : model.frozen()) sum.all += tensor.numel();
  return sum;
}

std::string Census::text() const {
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.4f", 100.0 * static_cast<double>(trainable) / static_cast<double>(all));
  return "trainable params: " + grouped(trainable) + " || all params: " + grouped(all) + " || trainable%: " + percent;
}

}  // namespace peft
