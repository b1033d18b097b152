#pragma once

#include "peft/options/options.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// XXH3-128 of the bytes of each tensor.
StringList digests_of(const NamedTensors& tensors);

}  // namespace peft
