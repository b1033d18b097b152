#include "peft/plugin.h"

namespace {

class Bf16 final : public peft::Precision {
 protected:
  torch::Dtype do_base_dtype() const override { return torch::kBFloat16; }
};

std::unique_ptr<peft::Precision> make(peft::Options&) { return std::make_unique<Bf16>(); }
void add(peft::Registry& registry) { registry.add<peft::Precision>("bf16", make); }

}  // namespace

PEFT_PLUGIN("bf16", "1.0.0", add)
