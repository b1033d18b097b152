// LLaMA-Adapter: in the last layers each token also attends to a trained prompt, through a gate that starts closed
// (Zhang et al. 2023, arXiv 2303.16199).
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/models/decoder.h>
#include <peft/nn/virtual_tokens.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// HF PEFT's AdaptionPromptConfig: its names. It has no defaults for the two numbers; the first is the paper's.
struct AdaptionOptions {
  int64_t adapter_len = 10;
  std::optional<int64_t> adapter_layers;
  std::string target_modules = "self_attn";
};

AdaptionOptions read(peft::Options& in) {
  AdaptionOptions o;
  in.get("adapter_len", o.adapter_len, "tokens of the prompt").in_size_limit(o.adapter_len);
  in.get("adapter_layers", o.adapter_layers, "how many of the last layers have a prompt; all where it is left out")
      .in_size_limit(o.adapter_layers.value_or(1));
  in.get("target_modules", o.target_modules, "\"self_attn\": where the prompts are")
      .require(o.target_modules == "self_attn", "must be \"self_attn\"");
  return o;
}

/// The prompt goes through the attention's own k_proj and v_proj, and is at no position.
class AdaptionLayer final : public peft::VirtualKeys {
 public:
  AdaptionLayer(const peft::Linear& k_proj, const peft::Linear& v_proj, const AdaptionOptions& o, int64_t head_dim,
                const at::TensorOptions& tensor_options)
      : k_proj_(k_proj), v_proj_(v_proj), head_dim_(head_dim) {
    prompt_ = register_parameter("adaption_prompt",
                                 peft::init::normal({1, o.adapter_len, k_proj.in_features()}, 1, tensor_options));
    gate_ = register_parameter("adaption_gate", peft::init::zeros({1}, tensor_options));
  }
  int64_t count() const override { return prompt_.size(1); }
  Tensor gate() const override { return gate_; }
  peft::KeysAndValues keys_and_values() const override {
    const Tensor prompt = prompt_[0].to(k_proj_.frozen().weight.scalar_type());
    const auto heads = [&](const Tensor& rows) { return rows.view({rows.size(0), -1, head_dim_}); };
    return {heads(k_proj_.forward(prompt)), heads(v_proj_.forward(prompt))};
  }

 private:
  const peft::Linear &k_proj_, &v_proj_;  // of the attention that holds this layer
  int64_t head_dim_;
  Tensor prompt_, gate_;  // [1, adapter_len, hidden], [1]
};

class AdaptionPrompt final : public peft::Adapter {
 public:
  explicit AdaptionPrompt(AdaptionOptions options) : options_(std::move(options)) {}
  bool is_identity_at_init() const override { return !biased_; }

  void attach(peft::Model& model, torch::Dtype dtype) override {
    const peft::MemoryScope scope(peft::MemoryComponent::adapter);
    const at::TensorOptions tensor_options = at::TensorOptions().dtype(dtype).device(model.device());
    const std::vector<peft::Site*> attentions = model.attentions();
    const auto wanted = static_cast<std::size_t>(layers_of(model));
    if (wanted > attentions.size())
      throw peft::ConfigError("[adapter] adapter_layers: " + std::to_string(wanted) + " are more than the model's " +
                              std::to_string(attentions.size()) + " layers");
    biased_ = model.config().attention_out_bias;
    for (std::size_t layer = attentions.size() - wanted; layer < attentions.size(); ++layer) {
      const auto projection = [&](const char* name) -> const peft::Linear& {
        return dynamic_cast<const peft::Linear&>(*model.find(attentions[layer]->path() + name));
      };
      add_layer(*attentions[layer], "adaption_prompt",
                std::make_shared<AdaptionLayer>(projection(".k_proj"), projection(".v_proj"), options_,
                                                model.config().head_dim, tensor_options));
    }
  }

  nlohmann::ordered_json hf_config(const peft::Model& model) const override {
    nlohmann::ordered_json config = peft::common_config("ADAPTION_PROMPT");
    config["adapter_layers"] = layers_of(model);
    config["adapter_len"] = options_.adapter_len;
    config["target_modules"] = options_.target_modules;
    return peft::sorted_config(config);
  }

 private:
  int64_t layers_of(const peft::Model& model) const {
    return options_.adapter_layers.value_or(model.config().num_hidden_layers);
  }
  AdaptionOptions options_;
  bool biased_ = false;  // o_proj's bias is added once more for the prompt, as in PEFT
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<AdaptionPrompt>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("adaption_prompt", make); }

}  // namespace

PEFT_PLUGIN("adaption_prompt", "1.0.0", add)
