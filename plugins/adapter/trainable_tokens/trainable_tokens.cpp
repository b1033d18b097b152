// Trainable tokens: train the embedding's rows of a few tokens (HF PEFT's TrainableTokensModel).
#include <peft/adapters/targeted_adapter.h>
#include <peft/adapters/token_layers.h>
#include <peft/models/model.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <nlohmann/json.hpp>

namespace {

/// The options of HF PEFT's TrainableTokensConfig, with its default for a causal language model.
struct TokensOptions {
  peft::IntList token_indices;
  bool init_weights = true;
  peft::Targets targets{.target_modules = "model.embed_tokens",
                        .has_exclude_modules = false,
                        .has_layer_filter = false,
                        .has_modules_to_save = false};
};

class TrainableTokens final : public peft::Adapter, public peft::HfFormat {
 public:
  explicit TrainableTokens(TokensOptions options)
      : Adapter(options.init_weights), HfFormat(this), options_(std::move(options)) {}
  const peft::HfFormat& hf_format() const noexcept override { return *this; }

 protected:
  void do_attach(peft::Model& model, torch::Dtype dtype) override {
    const peft::MemoryScope scope(peft::MemoryComponent::adapter);
    std::vector<std::pair<peft::Site*, peft::IntList>> sites;
    for (peft::Site* site : peft::select_sites(model, options_.targets))
      sites.emplace_back(site, options_.token_indices);
    const peft::TokenLayerOptions layer_options{"token_indices", "", !options_.init_weights,
                                                at::TensorOptions().dtype(dtype).device(model.device())};
    for (auto& [site, layer] : peft::make_token_layers(model, sites, layer_options))
      add_layer(*site, "tokens", std::move(layer));
  }

  /// HF PEFT also saves the rows of a tied head, which are the embedding's.
  peft::StateDict do_to_hf(const peft::Model& model) const override {
    return with_head(model, HfFormat::do_to_hf(model));
  }

  peft::StateDict do_add_derived_tensors(const peft::Model& model, peft::StateDict file) const override {
    return with_head(model, peft::without_tied_keys(model, std::move(file)));
  }

  nlohmann::ordered_json do_config(const peft::Model& model) const override {
    nlohmann::ordered_json config = peft::common_config("TRAINABLE_TOKENS");
    peft::write_targets(model, options_.targets, config);
    config["init_weights"] = options_.init_weights;
    config["token_indices"] = options_.token_indices;
    return peft::sorted_config(config);
  }

 private:
  peft::StateDict with_head(const peft::Model& model, peft::StateDict state) const {
    for (const auto& [key, head_key] : peft::tied_keys(model, state)) state.emplace(head_key, state.at(key));
    return state;
  }

  TokensOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) {
  TokensOptions o;
  in.get("token_indices", o.token_indices, "ids of the tokens whose embedding rows train");
  in.get("init_weights", o.init_weights, "true: the base's rows; false: random, for tests");
  peft::read_targets(in, o.targets);
  return std::make_unique<TrainableTokens>(std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::Adapter>("trainable_tokens", make); }

}  // namespace

PEFT_PLUGIN("trainable_tokens", "1.0.0", add)
