#include "nn/prefix.h"

#include <torch/types.h>

#include "ops/attention.h"

namespace peft {

// Uses splits and concatenations because their gradients are concatenations and splits; a gather's gradient is a sum,
// row by row.
Tensor prepend_to_each(const Tensor& prefix, const Tensor& rows, const std::vector<int64_t>& cu_seqlens) {
  std::vector<int64_t> lengths;
  for (std::size_t i = 1; i < cu_seqlens.size(); ++i) lengths.push_back(cu_seqlens[i] - cu_seqlens[i - 1]);
  std::vector<Tensor> parts;
  for (const Tensor& example : rows.split_with_sizes(lengths)) {
    parts.push_back(prefix);
    parts.push_back(example);
  }
  return at::cat(parts);
}

Tensor strip_from_each(int64_t n, const Tensor& rows, const std::vector<int64_t>& cu_seqlens) {
  std::vector<int64_t> lengths;
  for (std::size_t i = 1; i < cu_seqlens.size(); ++i) {
    lengths.push_back(n);
    lengths.push_back(cu_seqlens[i] - cu_seqlens[i - 1]);
  }
  const std::vector<Tensor> parts = rows.split_with_sizes(lengths);
  std::vector<Tensor> examples;
  for (std::size_t i = 1; i < parts.size(); i += 2) examples.push_back(parts[i]);
  return at::cat(examples);
}

std::vector<int64_t> shift_cu_seqlens(int64_t n, const std::vector<int64_t>& cu_seqlens) {
  std::vector<int64_t> moved = cu_seqlens;
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += static_cast<int64_t>(i) * n;
  return moved;
}

Tensor concatenated(const std::vector<Tensor>& parts) {
  if (parts.size() < 2) return parts.empty() ? Tensor() : parts.front();
  return at::cat(parts);
}

// Queries of zeros before each example make the prefix a part of the example, which the causal attention shows to all
// tokens after it. Their results are removed.
Tensor attention_with_prefix(const KeysAndValues& prefix, const Tensor& q, const Tensor& k, const Tensor& v,
                             const std::vector<int64_t>& cu_seqlens, double scale) {
  if (!prefix.keys.defined()) return attention(q, k, v, cu_seqlens, scale);
  const int64_t n = prefix.keys.size(0);
  const auto prepend = [&](const Tensor& rows, const Tensor& before) {
    return prepend_to_each(before.to(rows.scalar_type()), rows, cu_seqlens);
  };
  const Tensor mixed = attention(prepend(q, at::zeros({n, q.size(1), q.size(2)}, q.options())), prepend(k, prefix.keys),
                                 prepend(v, prefix.values), shift_cu_seqlens(n, cu_seqlens), scale);
  return strip_from_each(n, mixed, cu_seqlens);
}

Tensor gated_attention(const KeysAndValues& prefix, const Tensor& gate, const Tensor& q, double scale) {
  const auto& [keys, values] = prefix;
  const int64_t tokens = q.size(0), groups = keys.size(1), dim = q.size(2);
  // [kv_heads, T · heads of the group, D]
  const Tensor queries = q.reshape({tokens, groups, -1, dim}).transpose(0, 1).reshape({groups, -1, dim});
  const Tensor scores = at::bmm(queries, keys.to(q.scalar_type()).permute({1, 2, 0})) * scale;
  const auto wide = accumulation_dtype(scores);
  const Tensor weights = gate.to(q.scalar_type()) * scores.softmax(-1, wide).to(q.scalar_type());
  const Tensor mixed = at::bmm(weights, values.to(q.scalar_type()).transpose(0, 1));
  return mixed.view({groups, tokens, -1, dim}).transpose(0, 1).reshape({tokens, -1});
}

}  // namespace peft
