#pragma once

#include "peft/files/pretrained_model.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// fp32 values as they are stored: a tensor of `type`, or for Q8_0 the bytes of its blocks, bit for bit as ggml's
/// reference (a block: the largest of 32 values by 127 in fp16, and 32 quants of 8 bits). A row of Q8_0 is a multiple
/// of 32.
Tensor encode(const Tensor& wide, StoredType type);
/// The same; throws InputError, naming `name`, where `type` cannot hold the values.
Tensor encode_finite(const Tensor& wide, StoredType type, const std::string& name);
/// The fp32 values that encode() left, in the shape they had.
Tensor decode(const Tensor& stored, at::IntArrayRef shape, StoredType type);
/// What is left of fp32 values once they are stored.
Tensor rounded(const Tensor& wide, StoredType type);
/// "Half", "Q8_0", for messages.
std::string type_name(StoredType type);

}  // namespace peft
