#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "peft/files/pretrained_model.h"

namespace peft {

/// torch's dtype of a stored type; nullopt for quantized types.
std::optional<torch::Dtype> torch_type(StoredType type);
/// The stored type of torch's dtype. Throws std::logic_error if safetensors does not have it.
StoredType stored_type(torch::Dtype dtype);
/// torch's dtype by its name in config.json: "float32", "bfloat16" or "float16"; nullopt for other names.
std::optional<torch::Dtype> named_type(const std::string& name);

}  // namespace peft
