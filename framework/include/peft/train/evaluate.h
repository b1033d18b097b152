#pragma once

#include <cstdint>

#include "peft/base/export.h"
#include "peft/data/sampler.h"
#include "peft/models/decoder.h"
#include "peft/train/precision.h"

namespace peft {

/// Over the supervised tokens of a data set.
struct Evaluation {
  double loss = 0;      ///< mean cross-entropy, in nats
  double accuracy = 0;  ///< share of tokens that the model finds likeliest
  int64_t tokens = 0;
  PEFT_API double perplexity() const;  ///< exp(loss)
};
/// Without gradients or dropout. Throws InputError where there is no supervised token.
PEFT_API Evaluation evaluate(Model& model, Precision& precision, const Dataset& data, int64_t batch_size);

/// A batch on the model's device.
PEFT_API PackedTokens to_packed_tokens(const Batch& batch, torch::Device device);
PEFT_API Tensor to_labels(const Batch& batch, torch::Device device);

}  // namespace peft
