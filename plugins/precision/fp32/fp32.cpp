#include "peft/plugin.h"

namespace {

class Fp32 final : public peft::Precision {
 protected:
  torch::Dtype do_base_dtype() const override { return torch::kFloat32; }
};

std::unique_ptr<peft::Precision> make(peft::Options&) { return std::make_unique<Fp32>(); }
void add(peft::Registry& registry) { registry.add<peft::Precision>("fp32", make); }

}  // namespace

PEFT_PLUGIN("fp32", "1.0.0", add)
