#include "nn/prefix.h"

#include <torch/torch.h>

#include "ops/kernels.h"
#include "plugin/plugin_call.h"

namespace peft {

VirtualTokens::~VirtualTokens() = default;
Tensor VirtualTokens::forward(const Tensor& x, const Next& next) { return next(x); }

VirtualKeys::~VirtualKeys() = default;
Tensor VirtualKeys::forward(const Tensor& x, const Next& next) { return next(x); }
Tensor VirtualKeys::gate() const { return {}; }

// Splits and joins, whose gradients are joins and splits: a gather's would be added up row by row.
Tensor prepend_to_each(const Tensor& front, const Tensor& own, const std::vector<int64_t>& cu_seqlens) {
  std::vector<int64_t> lengths;
  for (std::size_t i = 1; i < cu_seqlens.size(); ++i) lengths.push_back(cu_seqlens[i] - cu_seqlens[i - 1]);
  std::vector<Tensor> parts;
  for (const Tensor& example : own.split_with_sizes(lengths)) {
    parts.push_back(front);
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
  std::vector<Tensor> own;
  for (std::size_t i = 1; i < parts.size(); i += 2) own.push_back(parts[i]);
  return at::cat(own);
}

std::vector<int64_t> shift_cu_seqlens(int64_t n, const std::vector<int64_t>& cu_seqlens) {
  std::vector<int64_t> moved = cu_seqlens;
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += static_cast<int64_t>(i) * n;
  return moved;
}

namespace {

using detail::call_plugin;

template <class Kind>
std::vector<const Kind*> layers_of(const Site& site) {
  std::vector<const Kind*> found;
  if (!site.adapted()) return found;
  for (const auto& layer : site.layers())
    if (const auto* one = dynamic_cast<const Kind*>(layer.get())) found.push_back(one);
  return found;
}

Tensor gate_of(const VirtualKeys& layer) {
  return call_plugin(layer, "gate", [&] { return layer.gate(); });
}
KeysAndValues keys_and_values_of(const VirtualKeys& layer) {
  return call_plugin(layer, "keys_and_values", [&] { return layer.keys_and_values(); });
}

std::vector<const VirtualKeys*> layers_in_front(const Site& attention) {
  auto found = layers_of<VirtualKeys>(attention);
  std::erase_if(found, [](const VirtualKeys* layer) { return gate_of(*layer).defined(); });
  return found;
}

Tensor joined(const std::vector<Tensor>& parts) {
  if (parts.size() < 2) return parts.empty() ? Tensor() : parts.front();
  return at::cat(parts);
}

}  // namespace

int64_t count_of(const VirtualKeys& layer) {
  return call_plugin(layer, "count", [&] { return layer.count(); });
}

int64_t virtual_count(const Embedding& site) {
  int64_t count = 0;
  for (const VirtualTokens* layer : layers_of<VirtualTokens>(site))
    count += call_plugin(*layer, "count", [&] { return layer->count(); });
  return count;
}

Tensor virtual_rows(const Embedding& site) {
  std::vector<Tensor> rows;
  for (const VirtualTokens* layer : layers_of<VirtualTokens>(site))
    rows.push_back(call_plugin(*layer, "rows", [&] { return layer->rows(); }));
  return joined(rows);
}

int64_t keys_in_front(const Site& attention) {
  int64_t count = 0;
  for (const VirtualKeys* layer : layers_in_front(attention)) count += count_of(*layer);
  return count;
}

KeysAndValues prefix_kv(const Site& attention) {
  std::vector<Tensor> keys, values;
  for (const VirtualKeys* layer : layers_in_front(attention)) {
    const KeysAndValues own = keys_and_values_of(*layer);
    keys.push_back(own.keys);
    values.push_back(own.values);
  }
  return {joined(keys), joined(values)};
}

// Queries of zeros stand before each example's own, so that the front is a part of the example like any other, which
// the causal attention shows to all that follow. What they find is taken away again.
Tensor attention_with_prefix(const KeysAndValues& front, const Tensor& q, const Tensor& k, const Tensor& v,
                             const std::vector<int64_t>& cu_seqlens, double scale) {
  if (!front.keys.defined()) return attention(q, k, v, cu_seqlens, scale);
  const int64_t n = front.keys.size(0);
  const auto behind = [&](const Tensor& own, const Tensor& rows) {
    return prepend_to_each(rows.to(own.scalar_type()), own, cu_seqlens);
  };
  const Tensor mixed = attention(behind(q, at::zeros({n, q.size(1), q.size(2)}, q.options())), behind(k, front.keys),
                                 behind(v, front.values), shift_cu_seqlens(n, cu_seqlens), scale);
  return strip_from_each(n, mixed, cu_seqlens);
}

std::vector<const VirtualKeys*> gated_keys(const Site& attention) {
  auto found = layers_of<VirtualKeys>(attention);
  std::erase_if(found, [](const VirtualKeys* layer) { return !gate_of(*layer).defined(); });
  return found;
}

Tensor gated_attention(const VirtualKeys& layer, const Tensor& q, double scale) {
  const auto [keys, values] = keys_and_values_of(layer);
  const int64_t tokens = q.size(0), groups = keys.size(1), dim = q.size(2);
  // [kv_heads, T · heads of the group, D]
  const Tensor queries = q.reshape({tokens, groups, -1, dim}).transpose(0, 1).reshape({groups, -1, dim});
  const Tensor scores = at::bmm(queries, keys.to(q.scalar_type()).permute({1, 2, 0})) * scale;
  const auto wide = scores.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const Tensor weights = gate_of(layer).to(q.scalar_type()) * scores.softmax(-1, wide).to(q.scalar_type());
  const Tensor mixed = at::bmm(weights, values.to(q.scalar_type()).transpose(0, 1));
  return mixed.view({groups, tokens, -1, dim}).transpose(0, 1).reshape({tokens, -1});
}

}  // namespace peft
