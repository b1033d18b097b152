#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/cross_entropy.h"

namespace peft {

/// Calls body(first, count) for consecutive chunks of at most kLogitRows rows.
template <class Body>
void for_logit_chunks(int64_t rows, Body&& body) {
  for (int64_t first = 0; first < rows; first += kLogitRows) body(first, std::min(kLogitRows, rows - first));
}

}  // namespace peft
