#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/module_check.h"
#include "peft/adapters/adapter.h"
#include "peft/adapters/training_hooks.h"
#include "peft/models/model.h"
#include "peft/runtime/param_group.h"
#include "peft/train/objective.h"
#include "peft/train/optimizer.h"

namespace peft {

/// Throws ConfigError if nothing is trainable, PluginError or std::logic_error unless `parameters` has each trainable
/// tensor exactly once. `adapters`: whose param groups they are, to name the one with the mistake.
void require_all_trained(const Model& model, const std::vector<Tensor>& parameters,
                         const std::vector<Adapter*>& adapters);

/// Throws std::logic_error if the frozen base no longer has `hash`.
void require_unchanged(const Model& model, const std::string& hash);

/// Checks one step: what its loss depends on and would learn are the adapter's parameters and nothing else. Every one
/// of them must get a finite gradient, no base tensor may get any, and the optimizer must keep their dtypes and shapes.
/// A mistake of a plugin is a PluginError, of the core a std::logic_error.
class GradientCheck {
 public:
  explicit GradientCheck(const Model& model);
  ~GradientCheck();
  GradientCheck(const GradientCheck&) = delete;
  GradientCheck& operator=(const GradientCheck&) = delete;
  bool open() const { return open_; }
  /// Before the backward pass of the loss of one micro-batch.
  void check_loss(const Objective& objective, const Pass& pass, const Tensor& loss) const;
  void check_auxiliary_loss(const TrainingHooks& hooks, const Tensor& loss) const;
  /// After the backward passes of a step.
  void check_gradients() const;
  /// After the optimizer's step: the check is complete.
  void check_step(const Optimizer& optimizer);

 private:
  void remove_hooks();
  void check_frozen() const;
  struct Watched {
    std::string name;
    Tensor tensor;
    torch::Dtype dtype;
    std::vector<int64_t> sizes;
    unsigned hook;
    std::shared_ptr<bool> reached;
  };
  const Model& model_;
  std::vector<Watched> watched_;
  std::optional<ParameterWatch> watch_;
  bool open_ = true;
};

}  // namespace peft
