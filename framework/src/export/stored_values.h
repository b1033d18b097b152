#pragma once

#include "peft/files/pretrained_model.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Converts fp32 values to `type`. For Q8_0 the result is the bytes of the blocks [blocks, 34], bit-identical to ggml's
/// reference: an fp16 scale, the largest magnitude of 32 values divided by 127, and 32 integers of 8 bits. Rows must be
/// a multiple of 32.
Tensor encode(const Tensor& values, StoredType type);
/// The same. Throws InputError, with the tensor's `name`, if a value is out of the range of `type`.
Tensor encode_finite(const Tensor& values, StoredType type, const std::string& name);
/// Converts the result of encode() to fp32. `shape` is the shape of the original values.
Tensor decode(const Tensor& stored, at::IntArrayRef shape, StoredType type);
/// The fp32 values after a conversion to `type` and back.
Tensor rounded(const Tensor& values, StoredType type);
/// Name of a type as a config.json or `--type` has it: "float16", "q8_0".
std::string dtype_name(StoredType type);

}  // namespace peft
