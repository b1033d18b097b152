#pragma once

#include <string>

#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/models/model.h"

namespace peft {

/// Hash of every example's tokens and labels: 32 hexadecimal digits.
PEFT_API std::string data_hash(const Dataset& data);

/// Hash of every frozen tensor's name and bytes: 32 hexadecimal digits.
PEFT_API std::string base_hash(const Model& model);

}  // namespace peft
