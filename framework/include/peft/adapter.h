#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "peft/export.h"
#include "peft/optimizer.h"
#include "peft/tensors.h"

namespace peft {

class Layer;
class Model;
class Site;

/// Where a run is.
struct StepPosition {
  int64_t step = 0;   ///< optimizer steps, from 1
  int64_t total = 0;  ///< of the whole run
};

/// One method of parameter-efficient fine-tuning: one plugin.
class PEFT_API Adapter {
 public:
  virtual ~Adapter();
  /// Places layers on the sites it chooses; the base is loaded and frozen. `dtype` is of what it trains.
  /// Throws ConfigError where a pattern of the options matches no module.
  virtual void attach(Model& model, torch::Dtype dtype) = 0;
  /// False: what was attached changes the model from the start (as random starts do).
  virtual bool starts_as_base() const { return true; }
  /// The parameters to train, in groups. Default: one group with all that trains in this adapter's layers, and the
  /// trainable copies on the model's sites.
  virtual std::vector<ParamGroup> groups(const Model& model) const;
  /// What the method adds to each step's loss (a scalar; AdaLoRA's orthogonality). Default: undefined, nothing.
  virtual Tensor auxiliary_loss() const;
  /// The step's gradients are complete and unscaled, and not yet clipped.
  virtual void after_backward(const StepPosition&) {}
  /// The optimizer took the step; the gradients are still there. May change parameters (AdaLoRA's budget of ranks).
  virtual void after_step(const StepPosition&) {}
  /// What a resumed run needs beside hf_state (AdaLoRA's importances). Default: nothing.
  virtual State state() const;
  virtual void load(const State& state);
  /// `adapter_config.json` as HF PEFT reads it; the core adds base_model_name_or_path and task_type.
  virtual nlohmann::ordered_json hf_config(const Model& model) const = 0;
  /// `adapter_model.safetensors`, HF PEFT's key → tensor. Default: "base_model.model." + site path + "." + name, for
  /// what `groups` trains by default.
  virtual State hf_state(const Model& model) const;
  /// What PEFT saves of the frozen base beside the adapter (an adapted embedding), key → the base's own tensor. A file
  /// may lack it, but must not hold another. Default: nothing.
  virtual State hf_base_state(const Model& model) const;
  /// The layers this adapter placed on `site`, others' left out.
  std::vector<std::shared_ptr<Layer>> layers_on(const Site& site) const;

 protected:
  /// Puts a layer of this adapter around a site; the first placed is the outermost. `name` tells it in the module tree.
  void place(Site& site, const std::string& name, std::shared_ptr<Layer> layer);

 private:
  NamedTensors own_parameters(const Model& model) const;
  std::map<const Site*, std::vector<std::shared_ptr<Layer>>> placed_;
};

}  // namespace peft
