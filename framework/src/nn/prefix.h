#pragma once

#include <vector>

#include "peft/nn/virtual_tokens.h"

namespace peft {

/// Inserts `prefix` [n, …] before each example. rows: [T, …] → [T + n · examples, …].
Tensor prepend_to_each(const Tensor& prefix, const Tensor& rows, const std::vector<int64_t>& cu_seqlens);
/// Removes the n rows before each example: [T + n · examples, …] → [T, …].
Tensor strip_from_each(int64_t n, const Tensor& rows, const std::vector<int64_t>& cu_seqlens);
/// cu_seqlens of the examples with n rows before each.
std::vector<int64_t> shift_cu_seqlens(int64_t n, const std::vector<int64_t>& cu_seqlens);

/// Along the first dimension; undefined for no tensor.
Tensor concatenated(const std::vector<Tensor>& parts);

/// peft::attention() of the examples, each after `prefix`, which may be undefined.
Tensor attention_with_prefix(const KeysAndValues& prefix, const Tensor& q, const Tensor& k, const Tensor& v,
                             const std::vector<int64_t>& cu_seqlens, double scale);

/// gate · softmax(q·keysᵀ · scale) · values. q: [T, heads, D] → [T, heads · D].
Tensor gated_attention(const KeysAndValues& prefix, const Tensor& gate, const Tensor& q, double scale);

}  // namespace peft
