#include "peft/adapters/encoder_state.h"

#include "plugin/plugin_call.h"

namespace peft {

EncoderState::~EncoderState() = default;

StateDict EncoderState::encoder_state_dict(const Model& model) const {
  return detail::call_plugin(*this, "encoder_state_dict", [&] { return do_encoder_state_dict(model); });
}

void EncoderState::on_weights_loaded(bool complete) const {
  detail::call_plugin(*this, "on_weights_loaded", [&] { do_on_weights_loaded(complete); });
}

}  // namespace peft
