#include "peft/plugin.h"

namespace {

class Fp64 final : public peft::Precision {
 protected:
  torch::Dtype do_base_dtype() const override { return torch::kFloat64; }
  torch::Dtype do_adapter_dtype() const override { return torch::kFloat64; }
};

std::unique_ptr<peft::Precision> make(peft::Options&) { return std::make_unique<Fp64>(); }
void add(peft::Registry& registry) { registry.add<peft::Precision>("fp64", make); }

}  // namespace

PEFT_PLUGIN("fp64", "1.0.0", add)
