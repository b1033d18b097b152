#pragma once

#include <vector>

#include "peft/runtime/tensors.h"

namespace peft {

/// The rows of a batch that the loss looks at, and what each must say.
struct TargetRows {
  Tensor rows;     ///< [n] int64, of the batch's tokens
  Tensor targets;  ///< [n] int64: row i is judged by label i + 1 of the same example
};
TargetRows select_target_rows(const std::vector<int64_t>& cu_seqlens, const Tensor& labels);

}  // namespace peft
