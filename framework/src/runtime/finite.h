#pragma once

#include "peft/runtime/tensors.h"

namespace peft {

/// True if no element is NaN or infinite. Reads a contiguous CPU tensor once, in parallel and without a copy.
bool all_finite(const Tensor& tensor);

}  // namespace peft
