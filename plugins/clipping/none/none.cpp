#include "peft/plugin.h"

namespace {

class None final : public peft::GradientClipping {
 protected:
  double do_clip(const std::vector<peft::ParamGroup>& groups) override {
    return peft::global_norm(peft::gradients(peft::parameters_of(groups)));
  }
};

std::unique_ptr<peft::GradientClipping> make(peft::Options&) { return std::make_unique<None>(); }
void add(peft::Registry& registry) { registry.add<peft::GradientClipping>("none", make); }

}  // namespace

PEFT_PLUGIN("none", "1.0.0", add)
