#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/plugin/stateful.h"
#include "peft/runtime/param_group.h"
#include "peft/runtime/tensors.h"

namespace peft {

class AdapterLayer;
class AdapterModule;
class Attention;
class Calibrated;
class Embedding;
class EncoderState;
class HfFormat;
class Model;
class Site;
class TrainingHooks;
class VirtualKeys;
class VirtualTokens;

/// One method of parameter-efficient fine-tuning. A plugin overrides do_attach() and hf_format(). If the method needs
/// more, its class also derives from a part (TrainingHooks, Calibrated) and returns itself from the part's accessor.
/// State (Stateful): what a resumed run needs that is not a tensor of the adapter's layers, such as AdaLoRA's
/// importances; it is loaded before attach, instead of calibration.
///
/// The public calls of this class and of its parts guard the plugin: an exception that is not a peft::Error becomes a
/// PluginError with the plugin's file.
class PEFT_API Adapter : public Stateful {
 public:
  ~Adapter() override;

  /// Adds layers to the sites that the method chooses. The base is loaded and frozen; the method may change its
  /// architecture first (Model::replicate_layers). `dtype`: of the trainable parameters.
  /// Throws ConfigError if a pattern of the options matches no module.
  void attach(Model& model, torch::Dtype dtype);
  /// The parameters to train. Default: one group with trainable_parameters().
  std::vector<ParamGroup> groups(const Model& model) const;
  /// False if attaching changes the model's outputs, as random initial values do.
  bool is_identity_at_init() const { return is_identity_at_init_; }

  /// The conversion to and from HF PEFT's files; lives as long as the adapter.
  virtual const HfFormat& hf_format() const noexcept = 0;
  /// Parts of the method; null if it has none. They live as long as the adapter.
  virtual TrainingHooks* training_hooks() noexcept { return nullptr; }
  virtual Calibrated* calibrated() noexcept { return nullptr; }
  virtual const EncoderState* encoder_state() const noexcept { return nullptr; }

  /// Call before attach if weights will be loaded after it: costly initial values can then be skipped.
  void skip_init() { will_be_loaded_ = true; }

  /// This adapter's modules on `site` (layers, virtual tokens, prefixes), in the order in which they were added.
  std::vector<std::shared_ptr<AdapterModule>> modules_on(const Site& site) const;
  /// The layers among modules_on(); the outermost first.
  std::vector<std::shared_ptr<AdapterLayer>> layers_on(const Site& site) const;
  /// This adapter's trainable copies of the site's own parameters, by parameter name.
  std::map<std::string, Tensor> trainable_copies(const Site& site) const;
  /// Copies and layer parameters that require gradients, in model order, named "<site path>.<name>".
  NamedTensors trainable_parameters(const Model& model) const;
  /// All copies, and all parameters and buffers of the layers, under keys that are unique within the adapter.
  StateDict all_tensors(const Model& model) const;

 protected:
  explicit Adapter(bool is_identity_at_init = true) : is_identity_at_init_(is_identity_at_init) {}
  virtual void do_attach(Model& model, torch::Dtype dtype) = 0;
  virtual std::vector<ParamGroup> do_groups(const Model& model) const;

  /// Adds a layer of this adapter to a site; the first added is the outermost. `name`: of the child module.
  void add_layer(Site& site, const std::string& name, std::shared_ptr<AdapterLayer> layer);
  /// Adds virtual tokens before each example.
  void add_virtual_tokens(Embedding& site, const std::string& name, std::shared_ptr<VirtualTokens> tokens);
  /// Adds keys and values that every token of an attention attends to.
  void add_kv_prefix(Attention& site, const std::string& name, std::shared_ptr<VirtualKeys> prefix);
  /// Trains one of the site's own parameters (Site::make_trainable). Throws ConfigError if another adapter trains it.
  void make_trainable(Site& site, const std::string& parameter, torch::Dtype dtype);
  /// Trains all parameters of `sites` in full (sites_to_save).
  void train_modules_to_save(const std::vector<Site*>& sites, torch::Dtype dtype);
  bool will_be_loaded() const { return will_be_loaded_; }

 private:
  std::map<const Site*, std::vector<std::shared_ptr<AdapterModule>>> modules_;
  std::map<const Site*, std::map<std::string, Tensor>> copies_;
  bool is_identity_at_init_;
  bool will_be_loaded_ = false;
};

}  // namespace peft
