#pragma once

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

class Model;

/// The part of a prompt method whose encoder trains but is not in HF PEFT's file, which holds only the encoder's output
/// (Adapter::encoder_state). It is saved in a separate file, `adapter_training.safetensors`.
class PEFT_API EncoderState {
 public:
  virtual ~EncoderState();
  /// The encoder's own tensors, by key. Empty if HF PEFT's file holds all that trains.
  StateDict encoder_state_dict(const Model& model) const;
  /// Called when the tensors of HfFormat::to_hf hold a file's values. `complete`: so do those of encoder_state_dict().
  /// Throws InputError if the two files do not belong together.
  void on_weights_loaded(bool complete) const;

 protected:
  virtual StateDict do_encoder_state_dict(const Model& model) const = 0;
  virtual void do_on_weights_loaded(bool complete) const = 0;
};

}  // namespace peft
