#include "ops/attention.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>

#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/dispatch.h"
#include "peft/runtime/profile.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// One example, by torch's attention. q: [n, heads, D] → [n, heads, D].
Tensor attend_by_torch(const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
  const auto batched = [](const Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };  // [1, heads, n, D]
  const Tensor y = at::scaled_dot_product_attention(batched(q), batched(k), batched(v), {}, 0.0, true, scale,
                                                    q.size(1) != k.size(1));
  return y.squeeze(0).transpose(0, 1);
}

Tensor attention_by_torch(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& cu_seqlens,
                          double scale) {
  std::vector<Tensor> parts;
  for (size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    const auto rows = [&](const Tensor& t) { return t.narrow(0, cu_seqlens[i], cu_seqlens[i + 1] - cu_seqlens[i]); };
    if (cu_seqlens[i + 1] > cu_seqlens[i]) parts.push_back(attend_by_torch(rows(q), rows(k), rows(v), scale));
  }
  return parts.empty() ? at::empty({0, q.size(1) * q.size(2)}, q.options()) : at::cat(parts).reshape({q.size(0), -1});
}

/// Runs `kernel` over heads.
template <class T>
void run(std::vector<simd::AttentionHead<T>>& heads, int64_t scratch_floats,
         void (*kernel)(const simd::AttentionHead<T>&, float*)) {
  const Tensor scratch = at::empty({num_workers(heads.size()), scratch_floats}, torch::kFloat);
  parallel_for_tasks(
      heads, [](const auto& head) { return head.tokens; },
      [&](int64_t thread, const auto& next) {
        float* buffer = data<float>(scratch) + thread * scratch_floats;
        while (const auto* head = next()) kernel(*head, buffer);
      });
}

/// The heads of all examples.
template <class T>
std::vector<simd::AttentionHead<T>> heads_of(const AttentionTensors& t, const std::vector<int64_t>& cu_seqlens,
                                             double scale) {
  const int64_t count = t.q.size(1), dim = t.q.size(2), group = count / t.k.size(1), width = count * dim;
  std::vector<simd::AttentionHead<T>> heads;
  for (size_t example = 0; example + 1 < cu_seqlens.size(); ++example) {
    const int64_t first = cu_seqlens[example], tokens = cu_seqlens[example + 1] - first;
    if (tokens == 0) continue;
    for (int64_t head = 0; head < count; ++head) {
      const auto input = [&](const Tensor& x, int64_t h) { return data<T>(x) + first * x.stride(0) + h * x.stride(1); };
      const auto dense = [&](const Tensor& x) {
        return x.defined() ? data<T>(x) + first * width + head * dim : nullptr;
      };
      simd::AttentionHead<T> h{};
      h.q = input(t.q, head), h.k = input(t.k, head / group), h.v = input(t.v, head / group);
      h.q_stride = t.q.stride(0), h.k_stride = t.k.stride(0), h.v_stride = t.v.stride(0);
      h.out = dense(t.out), h.dout = dense(t.dout), h.dq = dense(t.dq), h.dk = dense(t.dk), h.dv = dense(t.dv);
      h.out_stride = h.dout_stride = h.dq_stride = h.dk_stride = width;
      h.log_sum = data<float>(t.log_sum) + head * t.q.size(0) + first;
      h.tokens = tokens, h.dim = dim, h.scale = static_cast<float>(scale);
      heads.push_back(h);
    }
  }
  return heads;
}

/// out and log_sum from q, k and v.
void attend(const AttentionTensors& t, const std::vector<int64_t>& cu_seqlens, double scale) {
  PEFT_PROFILE_SCOPE("attention");
  if (attends_in_tiles(t.q)) return attention_in_tiles(t, cu_seqlens, scale);
  with_kernels(t.q.scalar_type(), [&]<class T>(const simd::Kernels<T>& kernels, T*) {
    auto heads = heads_of<T>(t, cu_seqlens, scale);
    run(heads, simd::attention_scratch(longest(cu_seqlens), t.q.size(2)), kernels.attention);
  });
}

/// dq, dk and dv; dk and dv in parts of a group of query heads, which the caller sums.
void differentiate(AttentionTensors& t, const std::vector<int64_t>& cu_seqlens, double scale) {
  PEFT_PROFILE_SCOPE("attention");
  const bool tiles = attends_in_tiles(t.q);
  const int64_t parts = tiles ? group_parts(t.q, t.k, cu_seqlens) : t.q.size(1) / t.k.size(1);
  t.dq = at::empty(t.q.sizes(), t.q.options());
  t.dk = at::empty({t.q.size(0), t.k.size(1) * parts, t.q.size(2)}, t.q.options()), t.dv = at::empty_like(t.dk);
  if (tiles) return attention_backward_in_tiles(t, cu_seqlens, scale);
  with_kernels(t.q.scalar_type(), [&]<class T>(const simd::Kernels<T>& kernels, T*) {
    auto heads = heads_of<T>(t, cu_seqlens, scale);
    run(heads, simd::attention_backward_scratch(longest(cu_seqlens), t.q.size(2)), kernels.attention_backward);
  });
}

struct Attention : torch::autograd::Function<Attention> {
  static Variable forward(AutogradContext* ctx, const Variable& q, const Variable& k, const Variable& v,
                          const std::vector<int64_t>& cu_seqlens, double scale) {
    const auto rows = [](const Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); };
    AttentionTensors t{rows(q), rows(k), rows(v), at::empty(q.sizes(), q.options()), {}, {}, {}, {}, {}};
    t.log_sum = at::empty({q.size(1), q.size(0)}, q.options().dtype(torch::kFloat));
    attend(t, cu_seqlens, scale);
    ctx->save_for_backward({t.q, t.k, t.v, t.out, t.log_sum});
    ctx->saved_data["starts"] = cu_seqlens;
    ctx->saved_data["scale"] = scale;
    return t.out.flatten(1);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    AttentionTensors t{saved[0], saved[1], saved[2], saved[3], saved[4], grads[0].contiguous().view(saved[0].sizes()),
                       {},       {},       {}};
    differentiate(t, ctx->saved_data["starts"].toIntVector(), ctx->saved_data["scale"].toDouble());
    const auto sum_of_parts = [&](const Tensor& x) {
      return x.sizes() == t.k.sizes() ? x : x.view({x.size(0), t.k.size(1), -1, x.size(2)}).sum(2);
    };
    return {t.dq, sum_of_parts(t.dk), sum_of_parts(t.dv), Variable(), Variable()};
  }
};

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& cu_seqlens,
                 double scale) {
  TORCH_CHECK(q.dim() == 3 && k.sizes() == v.sizes() && k.size(0) == q.size(0) && k.size(1) > 0 &&
                  q.size(1) % k.size(1) == 0 && k.size(2) == q.size(2),
              "attention: q ", q.sizes(), ", k ", k.sizes(), " and v ", v.sizes(), " do not fit together");
  TORCH_CHECK(!cu_seqlens.empty() && cu_seqlens.front() == 0 && cu_seqlens.back() == q.size(0) &&
                  std::is_sorted(cu_seqlens.begin(), cu_seqlens.end()),
              "attention: cu_seqlens must rise from 0 to ", q.size(0));
  if (!has_kernels(q, k, v)) return attention_by_torch(q, k, v, cu_seqlens, scale);
  return Attention::apply(q, k, v, cu_seqlens, scale);
}

}  // namespace peft
