#include <torch/torch.h>

#include "model/kernels.h"

namespace peft {

namespace {

/// One example, by torch's own attention. q: [n, heads, D] → [n, heads, D].
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
  const auto batched = [](const Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };  // [1, heads, n, D]
  const Tensor y = at::scaled_dot_product_attention(batched(q), batched(k), batched(v), {}, 0.0, true, scale,
                                                    q.size(1) != k.size(1));
  return y.squeeze(0).transpose(0, 1);
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& starts, double scale) {
  std::vector<Tensor> parts;
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    const auto rows = [&](const Tensor& t) { return t.narrow(0, starts[i], starts[i + 1] - starts[i]); };
    if (starts[i + 1] > starts[i]) parts.push_back(attend(rows(q), rows(k), rows(v), scale));
  }
  return parts.empty() ? at::empty({0, q.size(1) * q.size(2)}, q.options())
                       : at::cat(parts).reshape({q.size(0), -1});
}

}  // namespace peft
