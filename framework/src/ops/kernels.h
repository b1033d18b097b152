#pragma once

#include <cstdint>
#include <vector>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

// The decoder's operations outside the matrix products. Each has a gradient of its own that saves its inputs and
// nothing of their size besides. fp32 and bf16 on a CPU run vectorised; anything else runs torch's own operations.

/// a [m, k] · b [k, n], without a gradient. bf16 on a CPU that has no instructions for it is multiplied in fp32, a part
/// of the larger matrix at a time, and rounded once: several times faster than torch's emulation.
PEFT_API Tensor gemm(const Tensor& a, const Tensor& b);

/// x·Wᵀ + b, x: [..., in]; as at::linear, through `product` where that gains and weight and bias are frozen.
PEFT_API Tensor frozen_linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

/// x / sqrt(mean(x²) + eps), rounded to x's dtype, times weight (as transformers' LlamaRMSNorm).
/// x: [..., H], weight: [H]. Computed in fp32, or fp64 for fp64.
PEFT_API Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);

/// silu(gate) · up, of one shape.
PEFT_API Tensor swiglu(const Tensor& gate, const Tensor& up);

/// Turns dimension i and i + D/2 of each head by the token's angle (transformers' rotate_half).
/// x: [T, heads, D]; cos, sin: [T, D/2], or [T, D] with equal halves.
PEFT_API Tensor apply_rotary(const Tensor& x, const Tensor& cos, const Tensor& sin);

/// Causal attention inside each example. q: [T, heads, D], k and v: [T, kv_heads, D], heads a multiple of kv_heads;
/// starts: [examples + 1] offsets into T, rising from 0 to T. Returns [T, heads · D].
PEFT_API Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& cu_seqlens,
                          double scale);

/// Rows whose logits exist at a time: few enough that they stay small beside the activations, enough that reading W
/// once for each chunk is cheap.
inline constexpr int64_t kLogitRows = 256;

/// Sum over rows of the cross-entropy of hidden·Wᵀ with `targets` [N] int64, in fp32 (fp64 for fp64). The head's
/// weight [V, H] is frozen. hidden: [N, H]; logits exist for a few hundred rows at a time.
PEFT_API Tensor linear_cross_entropy_sum(const Tensor& hidden, const Tensor& weight, const Tensor& targets);

}  // namespace peft
