#pragma once

#include <cstdint>
#include <vector>

#include "peft/runtime/tensors.h"

namespace peft {

/// Keys and values of one sequence during generation.
struct KeyValueCache {
  std::vector<Tensor> keys, values;  ///< by layer, [kv_heads, virtual tokens + capacity, head_dim]
  int64_t length = 0;                ///< tokens in it, without virtual tokens
};

}  // namespace peft
