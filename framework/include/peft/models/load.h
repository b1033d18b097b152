#pragma once

#include <memory>
#include <string>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"
#include "peft/models/causal_lm.h"

namespace peft {

/// Builds the model and hands it the checkpoint's weights in `dtype` on `device`, without a copy where the file
/// already holds that dtype. Throws InputError with both lists where tensors are missing or unexpected, and for a
/// wrong shape or a value that is not finite; ResourceError before anything is read where they do not fit into memory.
PEFT_API std::shared_ptr<CausalLm> load_model(std::shared_ptr<const PretrainedModel> checkpoint, torch::Dtype dtype,
                                              torch::Device device);

}  // namespace peft
