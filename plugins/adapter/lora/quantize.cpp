#include "quantize.h"

#include <torch/torch.h>

namespace lora {

using torch::Tensor;

namespace {

/// The 16 values of NF4: quantiles of a normal distribution, scaled to ±1, with an exact 0.
constexpr float kNf4[] = {-1.0F,
                          -0.6961928009986877F,
                          -0.5250730514526367F,
                          -0.39491748809814453F,
                          -0.28444138169288635F,
                          -0.18477343022823334F,
                          -0.09105003625154495F,
                          0.0F,
                          0.07958029955625534F,
                          0.16093020141124725F,
                          0.24611230194568634F,
                          0.33791524171829224F,
                          0.44070982933044434F,
                          0.5626170039176941F,
                          0.7229568362236023F,
                          1.0F};
constexpr int64_t kBlock = 64;

Tensor round_to_nf4(const Tensor& weight) {
  const Tensor values = torch::tensor(at::ArrayRef<float>(kNf4), torch::kFloat).to(weight.options());
  const Tensor midpoints = (values.narrow(0, 1, 15) + values.narrow(0, 0, 15)) / 2;
  const int64_t padding = (kBlock - weight.numel() % kBlock) % kBlock;
  const Tensor blocks = at::constant_pad_nd(weight.reshape({-1}), {0, padding}).view({-1, kBlock});
  const Tensor max = blocks.abs().amax(1, /*keepdim=*/true).clamp_min(1e-30);
  const Tensor rounded =
      values.index_select(0, at::bucketize(blocks / max, midpoints).view({-1})).view_as(blocks) * max;
  return rounded.view({-1}).narrow(0, 0, weight.numel()).view_as(weight);
}

Tensor round_to_int8(const Tensor& weight) {
  const Tensor max = weight.abs().amax(1, /*keepdim=*/true).clamp_min(1e-30);
  return (weight * (127 / max)).round() * (max / 127);
}

}  // namespace

Tensor quantize_dequantize(const Tensor& weight, int64_t bits) {
  return bits == 4 ? round_to_nf4(weight) : round_to_int8(weight);
}

}  // namespace lora
