#pragma once

#include <torch/types.h>

#include <string>

#include "peft/base/export.h"

namespace peft {

/// A part of a run that computes the same on every device, but on some of them far too slowly. A precision that derives
/// from this class, too, is asked before the run, and its advice is shown as a warning.
class PEFT_API DeviceAdvice {
 public:
  virtual ~DeviceAdvice();
  /// One line for people; "" if the device is suitable.
  std::string advice(const torch::Device& device) const;

 protected:
  virtual std::string do_advice(const torch::Device& device) const = 0;
};

/// The advice of a part of a run; "" if it gives none.
template <class Part>
std::string advice_of(const Part& part, const torch::Device& device) {
  const auto* adviser = dynamic_cast<const DeviceAdvice*>(&part);
  return adviser == nullptr ? "" : adviser->advice(device);
}

}  // namespace peft
