#pragma once

#include "peft/runtime/tensors.h"

namespace peft {

/// An update that is scale · B(A(x)), with nothing else between: what the framework may fuse, and what a LoRA file can
/// hold. An Embedding's x is its id as a one-hot row.
struct LowRank {
  Tensor A;  ///< [r, in]
  Tensor B;  ///< [out, r]
  double scale = 1;
};

}  // namespace peft
