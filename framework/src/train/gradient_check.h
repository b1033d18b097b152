#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/models/model.h"

namespace peft {

/// Throws ConfigError if nothing is trainable, std::logic_error unless `parameters` has each trainable tensor exactly
/// once.
void require_all_trained(const Model& model, const std::vector<Tensor>& parameters);

/// Throws std::logic_error if the frozen base no longer has `hash`.
void require_unchanged(const Model& model, const std::string& hash);

/// Checks the gradients of one step: every adapter tensor must get a finite one, and no base tensor may get any.
class GradientCheck {
 public:
  explicit GradientCheck(const Model& model);
  ~GradientCheck();
  GradientCheck(const GradientCheck&) = delete;
  GradientCheck& operator=(const GradientCheck&) = delete;
  bool open() const { return open_; }
  /// After the backward passes of a step. Throws std::logic_error with every violation; otherwise the check is
  /// complete.
  void check();

 private:
  void remove_hooks();
  struct Watched {
    std::string name;
    Tensor tensor;
    unsigned hook;
    std::shared_ptr<bool> reached;
  };
  const Model& model_;
  std::vector<Watched> watched_;
  bool open_ = true;
};

}  // namespace peft
