// BitFit: train only the biases (Ben Zaken et al. 2021, arXiv 2106.10199).
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/models/model.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <nlohmann/json.hpp>

namespace {

struct BitFitOptions {
  peft::Targets targets{.target_modules = std::string(".*"), .sites = peft::Targets::Sites::all};
};

/// Adds no layers: trainable copies replace the frozen biases.
class BitFit final : public peft::Adapter, public peft::HfFormat {
 public:
  explicit BitFit(BitFitOptions options) : HfFormat(this), options_(std::move(options)) {}
  const peft::HfFormat& hf_format() const noexcept override { return *this; }

 protected:
  void do_attach(peft::Model& model, torch::Dtype dtype) override {
    const peft::MemoryScope scope(peft::MemoryComponent::adapter);
    bool any = false;
    for (peft::Site* site : peft::select_sites(model, options_.targets)) {
      if (!site->base_bias().defined()) continue;
      make_trainable(*site, "bias", dtype);
      any = true;
    }
    if (!any)
      throw peft::ConfigError(
          "[adapter] target_modules: none of the modules has a bias to train; use 'beft', which adds biases");
    train_modules_to_save(peft::sites_to_save(model, options_.targets), dtype);
  }

  nlohmann::ordered_json do_config(const peft::Model& model) const override {
    nlohmann::ordered_json config = peft::common_config("BITFIT");
    peft::write_targets(model, options_.targets, config);
    return peft::sorted_config(config);
  }

 private:
  BitFitOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) {
  BitFitOptions options;
  peft::read_targets(in, options.targets);
  return std::make_unique<BitFit>(std::move(options));
}

void add(peft::Registry& registry) { registry.add<peft::Adapter>("bitfit", make); }

}  // namespace

PEFT_PLUGIN("bitfit", "1.0.0", add)
