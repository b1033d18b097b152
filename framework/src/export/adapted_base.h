#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/adapters/adapter.h"
#include "peft/export/combine.h"
#include "peft/files/pretrained_model.h"
#include "peft/files/safetensors.h"
#include "peft/models/causal_lm.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// A base with its adapters attached in order, to be merged or exported.
struct AdaptedBase {
  std::shared_ptr<const PretrainedModel> checkpoint;
  std::shared_ptr<CausalLm> model;
  std::vector<std::unique_ptr<Adapter>> adapters;
  ReadingNotes notes;
};
AdaptedBase load_adapted_base(const AdaptedModelOptions& options, Plugins& plugins);

/// The dtype of most elements of the floating-point tensors.
StoredType main_type(const std::vector<TensorInfo>& tensors);

/// `output` without a trailing slash. Throws ConfigError if it exists.
std::string require_absent(const std::string& output);

}  // namespace peft
