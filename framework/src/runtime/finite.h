#pragma once

#include "peft/runtime/tensors.h"

namespace peft {

/// Whether no element is NaN or infinite. One pass by all threads, without a copy where the tensor is contiguous on the
/// CPU.
bool all_finite(const Tensor& tensor);

}  // namespace peft
