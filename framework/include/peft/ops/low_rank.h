#pragma once

#include "peft/runtime/tensors.h"

namespace peft {

/// An update scale · B(A(x)), without anything between A and B: the framework may fuse it, and a LoRA file can store
/// it. An Embedding's x is its id as a one-hot row.
struct LowRank {
  Tensor A;  ///< [r, in]
  Tensor B;  ///< [out, r]
  double scale = 1;
};

}  // namespace peft
