#include "peft/train/precision.h"

#include "peft/base/error.h"

namespace peft {

Precision::~Precision() = default;

void Precision::backward(const Tensor& loss) { loss.backward(); }
bool Precision::unscale_gradients(const std::vector<Tensor>&) { return true; }
void Precision::load_state_dict(const StateDict& state) {
  if (!state.empty()) throw InputError("this precision keeps no state, but the checkpoint has some");
}

}  // namespace peft
