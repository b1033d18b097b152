#pragma once
// The passes of a precision, whose own failures are told with its file.

#include "peft/precision.h"
#include "plugin/in_plugin.h"

namespace peft {

inline Tensor forward_in(Precision& precision, const std::function<Tensor()>& work) {
  return detail::around_plugin(
      precision, "forward", [&](detail::Outside& outside) { return precision.forward([&] { return outside(work); }); });
}

/// What autograd lets out is taken for the precision's: which layer's it is, cannot be told.
inline void backward_in(Precision& precision, const Tensor& loss) {
  detail::in_plugin(precision, "backward", [&] { precision.backward(loss); });
}

}  // namespace peft
