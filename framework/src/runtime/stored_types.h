#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "peft/files/pretrained_model.h"

namespace peft {

/// torch's type for a stored one; none for the quantised ones.
std::optional<torch::Dtype> torch_type(StoredType type);
/// The stored type for torch's. Throws std::logic_error where safetensors files have none.
StoredType stored_type(torch::Dtype dtype);
/// torch's type for one that a model is stored in, by config.json's name: float32, bfloat16, float16.
std::optional<torch::Dtype> named_type(const std::string& name);

}  // namespace peft
