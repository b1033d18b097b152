#pragma once
// The passes of a precision, whose own failures are told with its file.

#include "peft/train/precision.h"
#include "plugin/plugin_call.h"

namespace peft {

inline Tensor forward_in(Precision& precision, const std::function<Tensor()>& work) {
  return detail::call_plugin_with_callback(precision, "forward", [&](detail::CoreCallback& outside) {
    return precision.forward([&] { return outside(work); });
  });
}

/// What autograd lets out is taken for the precision's: which layer's it is, cannot be told.
inline void backward_in(Precision& precision, const Tensor& loss) {
  detail::call_plugin(precision, "backward", [&] { precision.backward(loss); });
}

}  // namespace peft
