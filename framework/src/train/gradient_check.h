#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/models/decoder.h"

namespace peft {

/// Throws ConfigError if nothing trains, std::logic_error if the optimizer does not hold each trainable tensor once.
void require_all_trained(const Model& model, const std::vector<Tensor>& parameters);

/// Throws std::logic_error if the frozen base is not what `hash` was taken of.
void require_unchanged(const Model& model, const std::string& hash);

/// Watches the gradients of one step: every adapter tensor must get a finite one, no base tensor any.
class GradientCheck {
 public:
  explicit GradientCheck(const Model& model);
  ~GradientCheck();
  GradientCheck(const GradientCheck&) = delete;
  GradientCheck& operator=(const GradientCheck&) = delete;
  bool open() const { return open_; }
  /// After the backward passes of a step. Throws std::logic_error with every breach; else closes the proof.
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
