#pragma once

#include <vector>

#include "peft/tensors.h"

namespace peft {

/// The rows of a batch that the loss looks at, and what each must say.
struct Supervised {
  Tensor rows;     ///< [n] int64, of the batch's tokens
  Tensor targets;  ///< [n] int64: row i is judged by label i + 1 of the same example
};
Supervised supervised_rows(const std::vector<int64_t>& starts, const Tensor& labels);

}  // namespace peft
