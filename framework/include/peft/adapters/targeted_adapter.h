#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/adapters/adapter.h"
#include "peft/adapters/hf_format.h"
#include "peft/adapters/targets.h"
#include "peft/base/export.h"
#include "peft/nn/embedding.h"
#include "peft/nn/linear.h"

namespace peft {

/// The fields that are in every adapter_config.json; `peft_type`: HF PEFT's name of the method, such as "LOHA".
PEFT_API nlohmann::ordered_json common_config(const std::string& peft_type);
/// The config with its keys in HF PEFT's order, which is alphabetical.
PEFT_API nlohmann::ordered_json sorted_config(const nlohmann::ordered_json& config);

/// A method with one layer for each module that `target_modules` selects, as nearly all methods are. It makes the
/// layers and writes its fields of the config; this class selects the modules, saves, and trains `modules_to_save`.
class PEFT_API TargetedAdapter : public Adapter, public HfFormat {
 public:
  ~TargetedAdapter() override;
  const HfFormat& hf_format() const noexcept final { return *this; }

 protected:
  TargetedAdapter(std::string peft_type, Targets targets, bool is_identity_at_init = true);
  void do_attach(Model& model, torch::Dtype dtype) override;
  nlohmann::ordered_json do_config(const Model& model) const final;
  StateDict do_to_hf(const Model& model) const override;

  /// Called once before the first make_layer(): for values by pattern and tensors that layers share. `tensor_options`:
  /// dtype and device of the trainable parameters.
  virtual void prepare(const Model& model, const std::vector<Site*>& sites, const at::TensorOptions& tensor_options);
  /// Makes the layer of `sites[index]`. Throws ConfigError if the options do not suit the site.
  virtual std::shared_ptr<AdapterLayer> make_layer(const Linear& site, std::size_t index,
                                                   const at::TensorOptions& tensor_options) = 0;
  /// Default: throws ConfigError.
  virtual std::shared_ptr<AdapterLayer> make_embedding_layer(const Embedding& site, std::size_t index,
                                                             const at::TensorOptions& tensor_options);
  /// Adds the method's own fields to a config that has the common ones and those of Targets.
  virtual void write_config(nlohmann::ordered_json& config) const = 0;
  /// Registers a tensor that all layers use and none of them owns; it is saved as "base_model." + name.
  void share(const std::string& name, const Tensor& tensor) { shared_.insert_or_assign(name, tensor); }
  const Targets& targets() const { return targets_; }
  /// Replaces the targets before attach, for a method that selects among them; the config has the new ones.
  void set_targets(Targets targets) { targets_ = std::move(targets); }

 private:
  std::string peft_type_;
  Targets targets_;
  StateDict shared_;
};

}  // namespace peft
