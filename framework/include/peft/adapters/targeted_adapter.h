#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/adapters/adapter.h"
#include "peft/adapters/targets.h"
#include "peft/base/export.h"
#include "peft/nn/site.h"

namespace peft {

/// The fields that each of PEFT's adapter_config.json has; `peft_type`: PEFT's name of the method, "LOHA".
PEFT_API nlohmann::ordered_json common_config(const std::string& peft_type);
/// The same with its keys in PEFT's order, which is the alphabet's.
PEFT_API nlohmann::ordered_json sorted_config(const nlohmann::ordered_json& config);

/// A method that puts one layer around each module that `target_modules` chooses, which nearly all do. It says which
/// layer and which fields its config has; choosing, saving and what is trained whole are here.
class PEFT_API TargetedAdapter : public Adapter {
 public:
  ~TargetedAdapter() override;
  void attach(Model& model, torch::Dtype dtype) override;
  nlohmann::ordered_json hf_config(const Model& model) const final;
  StateDict to_hf(const Model& model) const override;

 protected:
  TargetedAdapter(std::string peft_type, Targets targets);
  /// Called once before any layer is made: for values by pattern and what the layers share. `form`: dtype and device
  /// of what trains.
  virtual void prepare(const Model& model, const std::vector<Site*>& sites, const at::TensorOptions& tensor_options);
  /// The layer of the `index`-th of the sites. Throws ConfigError where the options do not suit the site.
  virtual std::shared_ptr<AdapterLayer> make_layer(const Linear& site, std::size_t index,
                                                   const at::TensorOptions& tensor_options) = 0;
  /// Default: a ConfigError.
  virtual std::shared_ptr<AdapterLayer> make_embedding_layer(const Embedding& site, std::size_t index,
                                                             const at::TensorOptions& tensor_options);
  /// Adds the config's fields that are the method's own: the common ones and the targets' are there.
  virtual void write_config(nlohmann::ordered_json& config) const = 0;
  /// A tensor that all layers use, trained by none of them alone; saved as "base_model." + name.
  void share(const std::string& name, const Tensor& tensor) { shared_.insert_or_assign(name, tensor); }
  const Targets& targets() const { return targets_; }
  /// For a method that chooses among them itself, before attach; what is written is what is set here.
  void set_targets(Targets targets) { targets_ = std::move(targets); }

 private:
  std::string peft_type_;
  Targets targets_;
  StateDict shared_;
};

}  // namespace peft
