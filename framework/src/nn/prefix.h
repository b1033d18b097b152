#pragma once

#include <vector>

#include "peft/nn/virtual_tokens.h"

namespace peft {

/// The examples with `front` [n, …] before each. own: [T, …] → [T + n · examples, …].
Tensor prepend_to_each(const Tensor& front, const Tensor& own, const std::vector<int64_t>& cu_seqlens);
/// The examples without the n rows before each: [T + n · examples, …] → [T, …].
Tensor strip_from_each(int64_t n, const Tensor& rows, const std::vector<int64_t>& cu_seqlens);
/// Where the examples start with n rows before each.
std::vector<int64_t> shift_cu_seqlens(int64_t n, const std::vector<int64_t>& cu_seqlens);

/// How many virtual tokens the adapters of an embedding put in front of each example, and which (undefined: none).
int64_t virtual_count(const Embedding& site);
Tensor virtual_rows(const Embedding& site);

/// How many keys stand in front of each example's own in an attention, and which (undefined: none).
int64_t keys_in_front(const Site& attention);
KeysAndValues prefix_kv(const Site& attention);

/// peft::attention() of the examples behind `front`, where there is one.
Tensor attention_with_prefix(const KeysAndValues& front, const Tensor& q, const Tensor& k, const Tensor& v,
                             const std::vector<int64_t>& cu_seqlens, double scale);

/// VirtualKeys::count(); a failure of it names its file.
int64_t count_of(const VirtualKeys& layer);
/// What the adapters of an attention attend to by themselves.
std::vector<const VirtualKeys*> gated_keys(const Site& attention);
/// gate · softmax(q·keysᵀ · scale) · values. q: [T, heads, D] → [T, heads · D].
Tensor gated_attention(const VirtualKeys& layer, const Tensor& q, double scale);

}  // namespace peft
