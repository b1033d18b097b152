// Full fine-tuning: the selected modules' own weights and biases train; by default those of all modules.
#include <peft/adapters/targeted_adapter.h>
#include <peft/models/model.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <nlohmann/json.hpp>

namespace {

struct FullOptions {
  peft::Targets targets{.target_modules = std::string(".*"), .sites = peft::Targets::Sites::all};
};

/// Adds no layers: trainable copies replace the frozen parameters.
class Full final : public peft::Adapter, public peft::HfFormat {
 public:
  explicit Full(FullOptions options) : HfFormat(this), options_(std::move(options)) {}
  const peft::HfFormat& hf_format() const noexcept override { return *this; }

 protected:
  void do_attach(peft::Model& model, torch::Dtype dtype) override {
    const peft::MemoryScope scope(peft::MemoryComponent::adapter);
    for (peft::Site* site : peft::select_sites(model, options_.targets)) {
      // A tied head and its embedding are one matrix, which trains once if either is selected.
      const bool tied =
          model.config().tie_word_embeddings && (site == model.output_embedding() || site == &model.embedding());
      if (tied) model.output_embedding()->tie_weight_to(model.embedding());
      train_modules_to_save({tied ? &model.embedding() : site}, dtype);
    }
    train_modules_to_save(peft::sites_to_save(model, options_.targets), dtype);
  }

  nlohmann::ordered_json do_config(const peft::Model& model) const override {
    nlohmann::ordered_json config = peft::common_config("FULL");
    peft::write_targets(model, options_.targets, config);
    return peft::sorted_config(config);
  }

 private:
  FullOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) {
  FullOptions options;
  peft::read_targets(in, options.targets);
  return std::make_unique<Full>(std::move(options));
}

void add(peft::Registry& registry) { registry.add<peft::Adapter>("full", make); }

}  // namespace

PEFT_PLUGIN("full", "1.0.0", add)
