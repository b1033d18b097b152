#pragma once

#include <cstdint>
#include <string>

#include "peft/base/export.h"
#include "peft/models/model.h"

namespace peft {

/// How many parameters train, and how many there are (HF PEFT counts the adapter among them).
struct ParameterCounts {
  int64_t trainable = 0, all = 0;
  PEFT_API std::string text() const;  ///< HF's line "trainable params: … || all params: … || trainable%: …"
};
PEFT_API ParameterCounts count_parameters(const Model& model);

}  // namespace peft
