// Each line follows transformers' in order and precision: the frequencies come out bit-equal.
#include "ops/rope.h"

#include <torch/types.h>

#include <cmath>
#include <numbers>

#include "peft/base/error.h"

namespace peft {

namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

Tensor position_frequencies(double theta, int64_t dim) {
  const Tensor exponents = at::arange(0, dim, 2, torch::kLong).to(torch::kFloat) / static_cast<double>(dim);
  return at::pow(torch::Scalar(theta), exponents);
}

/// Divides low frequencies by the factor, leaves high ones unchanged, and interpolates those between.
Tensor llama3(const RopeConfig& rope, const Tensor& inv_freq) {
  const auto old_length = static_cast<double>(rope.original_max_position_embeddings);
  const double low_wave = old_length / rope.low_freq_factor, high_wave = old_length / rope.high_freq_factor;
  const Tensor wave = kTwoPi / inv_freq;
  const Tensor scaled = at::where(wave > low_wave, inv_freq / rope.factor, inv_freq);
  const Tensor smooth = (old_length / wave - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  const Tensor blended = (1 - smooth) * scaled / rope.factor + smooth * scaled;
  const Tensor between = at::logical_and(at::logical_not(wave < high_wave), at::logical_not(wave > low_wave));
  return at::where(between, blended, scaled);
}

double yarn_scaling(const RopeConfig& rope) {
  const auto scale = [&](double mscale) { return rope.factor <= 1 ? 1 : 0.1 * mscale * std::log(rope.factor) + 1; };
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.mscale.value_or(0) != 0 && rope.mscale_all_dim.value_or(0) != 0)
    return scale(*rope.mscale) / scale(*rope.mscale_all_dim);
  return scale(1);
}

Tensor yarn(const RopeConfig& rope, int64_t dim) {
  const auto length = static_cast<double>(rope.original_max_position_embeddings), wide = static_cast<double>(dim);
  const auto correction = [&](double rotations) {
    return wide * std::log(length / (rotations * kTwoPi)) / (2 * std::log(rope.theta));
  };
  double low = correction(rope.beta_fast), high = correction(rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, wide - 1);
  if (low == high) high += 0.001;
  const Tensor ramp = at::clamp((at::arange(dim / 2, torch::kFloat) - low) / (high - low), 0, 1);
  const Tensor keep = 1 - ramp, freqs = position_frequencies(rope.theta, dim);
  return 1.0 / (rope.factor * freqs) * (1 - keep) + 1.0 / freqs * keep;
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeConfig& rope, int64_t head_dim) {
  const auto dim = static_cast<int64_t>(static_cast<double>(head_dim) * rope.partial_rotary_factor);
  if (rope.type == "yarn") return {yarn(rope, dim), yarn_scaling(rope)};
  const Tensor inv_freq = 1.0 / position_frequencies(rope.theta, dim);
  if (rope.type == "default") return {inv_freq, 1};
  if (rope.type == "linear") return {inv_freq / rope.factor, 1};
  if (rope.type == "llama3") return {llama3(rope, inv_freq), 1};
  throw InputError("RoPE scaling '" + printable(rope.type) + "' is not implemented: default, linear, llama3, yarn are");
}

Rotation rotate(const RopeFrequencies& frequencies, const Tensor& positions) {
  // The angles are fp32 as in transformers; the cosines are computed in fp64 and rounded. The last bit of torch's fp32
  // cosines depends on an element's address, so that equal inputs would not give equal results.
  const Tensor fp32 = positions.to(torch::kFloat).cpu().unsqueeze(1) * frequencies.inv_freq;
  const Tensor angles = fp32.to(torch::kDouble);
  const auto scaled = [&](const Tensor& wide) {
    return (wide.to(torch::kFloat) * frequencies.attention_scaling).to(positions.device());
  };
  return {scaled(angles.cos()), scaled(angles.sin())};
}

}  // namespace peft
