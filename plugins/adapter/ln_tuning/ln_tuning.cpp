// LN-tuning: train only the norms' weights (Zhao et al. 2023, arXiv 2312.11420; Qi et al. 2022, arXiv 2211.08682).
#include <peft/adapters/targeted_adapter.h>
#include <peft/models/model.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <nlohmann/json.hpp>
#include <set>

namespace {

/// The options of HF PEFT's LNTuningConfig, with its defaults for Llama.
struct LnOptions {
  peft::Targets targets{.target_modules = peft::StringList{"input_layernorm", "post_attention_layernorm", "norm"},
                        .has_layer_filter = false,
                        .sites = peft::Targets::Sites::norm};
};

/// Adds no layers: trainable copies replace the norms' weights.
class LnTuning final : public peft::Adapter, public peft::HfFormat {
 public:
  explicit LnTuning(LnOptions options) : HfFormat(this), options_(std::move(options)) {}
  const peft::HfFormat& hf_format() const noexcept override { return *this; }

 protected:
  void do_attach(peft::Model& model, torch::Dtype dtype) override {
    const peft::MemoryScope scope(peft::MemoryComponent::adapter);
    for (peft::Site* site : peft::select_sites(model, options_.targets)) {
      make_trainable(*site, "weight", dtype);
      tuned_.insert(site);
    }
    train_modules_to_save(peft::sites_to_save(model, options_.targets), dtype);
  }

  nlohmann::ordered_json do_config(const peft::Model& model) const override {
    nlohmann::ordered_json config = peft::common_config("LN_TUNING");
    peft::write_targets(model, options_.targets, config);
    return peft::sorted_config(config);
  }

  peft::StateDict do_to_hf(const peft::Model& model) const override {
    peft::StateDict state;
    for (const peft::Site* site : model.sites())
      for (const auto& [name, copy] : trainable_copies(*site))
        state.emplace(peft::hf_key(*site, (tuned_.contains(site) ? "ln_tuning_layers." : "") + name), copy);
    return state;
  }

 private:
  LnOptions options_;
  std::set<const peft::Site*> tuned_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) {
  LnOptions options;
  peft::read_targets(in, options.targets);
  return std::make_unique<LnTuning>(std::move(options));
}

void add(peft::Registry& registry) { registry.add<peft::Adapter>("ln_tuning", make); }

}  // namespace

PEFT_PLUGIN("ln_tuning", "1.0.0", add)
