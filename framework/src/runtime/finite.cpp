#include "runtime/finite.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <atomic>
#include <cstring>

namespace peft {

namespace {

/// Checks `count` floating-point numbers. A number is NaN or infinite if all bits of its exponent, in the mask
/// `exponent`, are ones.
template <class Bits>
bool all_finite_bits(const void* data, int64_t count, Bits exponent) {
  std::atomic<bool> found = false;
  constexpr int64_t elements_per_task = 1 << 16;
  at::parallel_for(0, count, elements_per_task, [&](int64_t begin, int64_t end) {
    const char* numbers = static_cast<const char*>(data) + begin * static_cast<int64_t>(sizeof(Bits));
    Bits any = 0;  // the loop has no early exit, so that it is vectorized
    for (int64_t i = 0; i < end - begin; ++i) {
      Bits bits;
      std::memcpy(&bits, numbers + i * static_cast<int64_t>(sizeof bits), sizeof bits);
      any |= static_cast<Bits>((bits & exponent) == exponent);
    }
    if (any != 0) found = true;
  });
  return !found;
}

}  // namespace

bool all_finite(const Tensor& tensor) {
  if (!tensor.device().is_cpu() || !tensor.is_floating_point()) return at::isfinite(tensor).all().item<bool>();
  const Tensor dense = tensor.contiguous();
  const void* data = dense.const_data_ptr();
  switch (dense.scalar_type()) {
    case torch::kDouble:
      return all_finite_bits<uint64_t>(data, dense.numel(), 0x7ff0000000000000);
    case torch::kFloat:
      return all_finite_bits<uint32_t>(data, dense.numel(), 0x7f800000);
    case torch::kHalf:
      return all_finite_bits<uint16_t>(data, dense.numel(), 0x7c00);
    case torch::kBFloat16:
      return all_finite_bits<uint16_t>(data, dense.numel(), 0x7f80);
    default:
      return at::isfinite(dense).all().item<bool>();
  }
}

}  // namespace peft
