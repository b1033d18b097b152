#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "peft/export.h"
#include "peft/optimizer.h"
#include "peft/tensors.h"

namespace peft {

class Model;

/// One method of parameter-efficient fine-tuning: one plugin.
class PEFT_API Adapter {
 public:
  virtual ~Adapter();
  /// Places layers on the sites it chooses; the base is loaded and frozen. `dtype` is of what it trains.
  /// Throws ConfigError where a pattern of the options matches no module.
  virtual void attach(Model& model, torch::Dtype dtype) = 0;
  /// The parameters to train, in groups. Default: one group with all of them.
  virtual std::vector<ParamGroup> groups(const Model& model) const;
  /// `adapter_config.json` as HF PEFT reads it; the core adds base_model_name_or_path and task_type.
  virtual nlohmann::ordered_json hf_config(const Model& model) const = 0;
  /// `adapter_model.safetensors`, HF PEFT's key → tensor. Default: "base_model.model." + site path + "." + name.
  virtual State hf_state(const Model& model) const;
};

}  // namespace peft
