#pragma once

#include <cstdint>
#include <vector>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// What causal attention inside each example works on; see attention.h for the shapes. out, log_sum and the gradients
/// are filled.
struct AttentionTensors {
  Tensor q, k, v, out, log_sum;  ///< log_sum [heads, T] fp32: of the softmax's denominator, for the way back
  Tensor dout, dq, dk, dv;       ///< backward only; dk and dv [T, heads, D]: a group's first head may hold all of it
};

/// Tokens of the longest example.
int64_t longest(const std::vector<int64_t>& cu_seqlens);

/// Whether this machine multiplies tiles of bf16 (AVX-512 BF16 or AMX, by libtorch's brgemm) and takes this head width.
bool attends_in_tiles(const Tensor& q);
/// Whether it may; off only to test the other path.
PEFT_API void enable_tiles(bool on);

/// For `attends_in_tiles`. Head by head of keys, each thread taking the next.
void attention_in_tiles(const AttentionTensors& t, const std::vector<int64_t>& cu_seqlens, double scale);
/// dk, dv: [T, kv_heads · parts, D]; the caller sums the parts.
void attention_backward_in_tiles(const AttentionTensors& t, const std::vector<int64_t>& cu_seqlens, double scale);
/// Pieces that a group of query heads is split into, so that there is enough for some threads to share. Says the same
/// for any number of threads, as rounding depends on it.
int64_t group_parts(const Tensor& q, const Tensor& k, const std::vector<int64_t>& cu_seqlens);

}  // namespace peft
