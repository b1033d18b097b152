#pragma once

namespace peft {

/// While an object with `lenient` exists in this thread, names and patterns that match no module of the model are
/// ignored by select_sites() and the like. So a finished adapter attaches, whose tensors say what it adapts, while a
/// typo in an experiment remains an error.
class LenientTargets {
 public:
  explicit LenientTargets(bool lenient) : outer_(active_) { active_ = lenient; }
  ~LenientTargets() { active_ = outer_; }
  LenientTargets(const LenientTargets&) = delete;
  LenientTargets& operator=(const LenientTargets&) = delete;
  static bool active() { return active_; }

 private:
  static inline thread_local bool active_ = false;
  bool outer_;
};

}  // namespace peft
