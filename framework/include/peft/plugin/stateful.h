#pragma once

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// State that a checkpoint stores and a resumed run restores. The public calls guard the plugin: an exception that is
/// not a peft::Error becomes a PluginError with the plugin's file.
class PEFT_API Stateful {
 public:
  virtual ~Stateful();
  /// Everything needed to continue bit-identically, except the parameters themselves.
  StateDict state_dict() const;
  /// Continues from `state`. Throws InputError if it does not fit.
  void load_state_dict(const StateDict& state);

 protected:
  virtual StateDict do_state_dict() const;  ///< default: empty
  virtual void do_load_state_dict(
      const StateDict& state);  ///< default: throws InputError for a state that is not empty
};

}  // namespace peft
