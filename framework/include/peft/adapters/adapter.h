#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/runtime/param_group.h"
#include "peft/runtime/tensors.h"

namespace peft {

struct Calibration;
class AdapterLayer;
class Model;
class Site;

/// Where a run is.
struct TrainStep {
  int64_t step = 0;   ///< optimizer steps, from 1
  int64_t total = 0;  ///< of the whole run
};

/// One method of parameter-efficient fine-tuning: one plugin.
class PEFT_API Adapter {
 public:
  virtual ~Adapter();
  /// Before attach, where training begins: a look at the base's behaviour on the data (EVA's inputs, LoRA-GA's
  /// gradients). No layer stays on the model, whose shape may be attach's already. Not called where a saved adapter is
  /// loaded. Default: none.
  virtual void calibrate(Model& model, const Calibration& data);
  /// Places layers on the sites it chooses, of a model whose shape it may change first (Model::replicate_layers); the
  /// base is loaded and frozen. `dtype` is of what it trains.
  /// Throws ConfigError where a pattern of the options matches no module.
  virtual void attach(Model& model, torch::Dtype dtype) = 0;
  /// False: what was attached changes the model from the start (as random starts do).
  virtual bool is_identity_at_init() const { return true; }
  /// The parameters to train, in groups. Default: one group with all that trains in this adapter's layers, and its
  /// trainable copies.
  virtual std::vector<ParamGroup> groups(const Model& model) const;
  /// What the method adds to each step's loss (a scalar; AdaLoRA's orthogonality). Default: undefined, nothing.
  virtual Tensor auxiliary_loss() const;
  /// The step's gradients are complete and unscaled, and not yet clipped.
  virtual void after_backward(const TrainStep&) {}
  /// The optimizer took the step; the gradients are still there. May change parameters (AdaLoRA's budget of ranks).
  virtual void after_step(const TrainStep&) {}
  /// True: its steps so far would have been others in a run of another length (TrainStep::total).
  virtual bool depends_on_total_steps() const { return false; }
  /// What a resumed run needs that no tensor of its layers holds (AdaLoRA's importances, the ranks that EVA came to).
  /// Default: nothing.
  virtual StateDict state_dict() const;
  /// Takes it before attach, in calibrate's place. Throws InputError for what is not of this method.
  virtual void load_state_dict(const StateDict& state);
  /// Every tensor of its layers and every trained copy, as they train: by site, number of the layer there and name.
  StateDict tensors(const Model& model) const;
  /// `adapter_config.json` as HF PEFT reads it; the core adds base_model_name_or_path and task_type.
  virtual nlohmann::ordered_json hf_config(const Model& model) const = 0;
  /// `adapter_model.safetensors`, HF PEFT's key → tensor. Default: "base_model.model." + site path + "." + name, for
  /// what `groups` trains by default.
  virtual StateDict to_hf(const Model& model) const;
  /// Adds to a file what to_hf has besides and this method can compute. Default: nothing.
  virtual StateDict add_derived_tensors(const Model& model, StateDict file) const;
  /// Takes a file that has to_hf's keys and shapes. Default: copies each tensor into to_hf's; another where what
  /// is saved is not what trains, but made of it. Throws InputError for values that make no sense.
  virtual void from_hf(const Model& model, const StateDict& file) const;
  /// What PEFT saves of the frozen base beside the adapter (an adapted embedding), key → the base's own tensor. A file
  /// may lack it, but must not hold another. Default: embedding and head, where the vocabulary was resized.
  virtual StateDict base_tensors_saved_by_hf(const Model& model) const;
  /// What training goes on from and to_hf does not hold (an encoder of which PEFT saves only what it makes): saved
  /// beside the adapter, in a file of its own. Default: nothing.
  virtual StateDict encoder_state_dict(const Model& model) const;
  /// The tensors of to_hf hold a file's values now; `whole`: those of encoder_state_dict too.
  virtual void on_weights_loaded(bool /*whole*/) {}
  /// After attach, a file will fill it: costly start values need not be made. Said before attach.
  void skip_init() { will_be_loaded_ = true; }
  /// The layers this adapter placed on `site`, others' left out.
  std::vector<std::shared_ptr<AdapterLayer>> layers_on(const Site& site) const;
  /// The trained copies of the site's own parameters that are this adapter's, by parameter name.
  std::map<std::string, Tensor> trainable_copies(const Site& site) const;

 protected:
  /// Puts a layer of this adapter around a site; the first placed is the outermost. `name` tells it in the module tree.
  void add_layer(Site& site, const std::string& name, std::shared_ptr<AdapterLayer> layer);
  /// Trains one of the site's own parameters (Site::make_trainable). Throws ConfigError where another adapter does.
  void make_trainable(Site& site, const std::string& parameter, torch::Dtype dtype);
  /// The same of all parameters of the modules to train whole (sites_to_save).
  void train_modules_to_save(const std::vector<Site*>& sites, torch::Dtype dtype);
  bool will_be_loaded() const { return will_be_loaded_; }

 private:
  NamedTensors own_parameters(const Model& model) const;
  std::map<const Site*, std::vector<std::shared_ptr<AdapterLayer>>> placed_;
  std::map<const Site*, std::map<std::string, Tensor>> copied_;
  bool will_be_loaded_ = false;
};

}  // namespace peft
