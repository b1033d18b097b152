// BitFit: train the biases alone (Ben Zaken et al. 2021, arXiv 2106.10199).
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/models/decoder.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <nlohmann/json.hpp>

namespace {

struct BitFitOptions {
  peft::Targets targets{.target_modules = std::string(".*"), .sites = peft::Targets::Sites::all};
};

/// No layers: trained copies stand in the frozen biases' place.
class BitFit final : public peft::Adapter {
 public:
  explicit BitFit(BitFitOptions options) : options_(std::move(options)) {}

  void attach(peft::Model& model, torch::Dtype dtype) override {
    const peft::MemoryScope scope(peft::MemoryComponent::adapter);
    bool any = false;
    for (peft::Site* site : peft::select_sites(model, options_.targets)) {
      if (!site->frozen().bias.defined()) continue;
      make_trainable(*site, "bias", dtype);
      any = true;
    }
    if (!any)
      throw peft::ConfigError(
          "[adapter] target_modules: no module among them has a bias, so there is nothing to train; "
          "'beft' adds biases to modules that have none");
    train_modules_to_save(peft::sites_to_save(model, options_.targets), dtype);
  }

  nlohmann::ordered_json hf_config(const peft::Model& model) const override {
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
