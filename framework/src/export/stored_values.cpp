#include "export/stored_values.h"

#include <torch/types.h>

#include <algorithm>
#include <cctype>

#include "peft/base/error.h"
#include "pretrained/gguf/types.h"
#include "runtime/finite.h"
#include "runtime/stored_types.h"

namespace peft {

namespace {

/// Rounds halves away from zero, exactly.
Tensor round_half_away(const Tensor& values) {
  const Tensor magnitude = values.abs(), floor = magnitude.floor();
  return (floor + (2 * (magnitude - floor)).floor()) * values.sign();
}

Tensor encode_q8_0(const Tensor& values) {
  const Tensor blocks = values.reshape({-1, 32});
  const Tensor scale = blocks.abs().amax(1, /*keepdim=*/true) / 127;
  const Tensor inverse = torch::where(scale == 0, torch::zeros_like(scale), scale.reciprocal());
  const Tensor quants = round_half_away(blocks * inverse).to(torch::kChar);
  return torch::cat({scale.to(torch::kHalf).view(torch::kByte), quants.view(torch::kByte)}, 1).contiguous();
}

}  // namespace

Tensor encode(const Tensor& values, StoredType type) {
  if (type == StoredType::q8_0) return encode_q8_0(values);
  return values.to(torch_type(type).value()).contiguous();
}

Tensor encode_finite(const Tensor& values, StoredType type, const std::string& name) {
  Tensor stored = encode(values, type);
  // A block of Q8_0 starts with its scale, the only value that can be non-finite.
  const bool blocks = type == StoredType::q8_0;
  if (!all_finite(blocks ? stored.narrow(1, 0, 2).contiguous().view(torch::kHalf) : stored))
    throw InputError("'" + printable(name) + "' is not finite" +
                     (all_finite(values.contiguous())
                          ? " in " + dtype_name(type) + "; use fp32 or bf16, which have a larger range"
                          : ": its adapter's update is too large for fp32, or the adapter has diverged"));
  return stored;
}

Tensor decode(const Tensor& stored, at::IntArrayRef shape, StoredType type) {
  if (type != StoredType::q8_0) return stored.to(torch::kFloat);
  Tensor out = torch::empty(shape, torch::kFloat);
  dequantize(type, static_cast<const std::byte*>(stored.data_ptr()), stored.size(0), out.data_ptr<float>());
  return out;
}

Tensor rounded(const Tensor& values, StoredType type) { return decode(encode(values, type), values.sizes(), type); }

std::string dtype_name(StoredType type) {
  for (const char* name : {"float32", "float16", "bfloat16"})
    if (torch_type(type) == named_type(name)) return name;
  if (const auto dtype = torch_type(type)) return c10::toString(*dtype);
  std::string name = gguf_type(type).name;
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name;
}

}  // namespace peft
