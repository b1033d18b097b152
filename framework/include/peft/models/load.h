#pragma once

#include <memory>
#include <string>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"
#include "peft/models/causal_lm.h"

namespace peft {

/// Builds the model and loads its weights in `dtype` on `device`. Weights that the file stores in that dtype are
/// mapped, not copied. Throws InputError if tensors are missing or unexpected (all are listed), if a shape is wrong, or
/// if a value is not finite; ResourceError, before anything is read, if the weights do not fit into memory.
PEFT_API std::shared_ptr<CausalLm> load_model(std::shared_ptr<const PretrainedModel> pretrained, torch::Dtype dtype,
                                              torch::Device device);

}  // namespace peft
