#pragma once

#include <torch/types.h>

#include <optional>

#include "peft/files/checkpoint.h"

namespace peft {

/// torch's type for a stored one; none for the quantised ones.
std::optional<torch::Dtype> torch_type(StoredType type);
/// The stored type for torch's. Throws std::logic_error where safetensors files have none.
StoredType stored_type(torch::Dtype dtype);

}  // namespace peft
