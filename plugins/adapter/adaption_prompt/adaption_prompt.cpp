// LLaMA-Adapter: in the last layers each token also attends to a trained prompt, through a gate initialized to zero
// (Zhang et al. 2023, arXiv 2303.16199).
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/models/model.h>
#include <peft/nn/virtual_tokens.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// HF PEFT's AdaptionPromptConfig, which has no defaults for the two numbers; that of adapter_len is the paper's.
struct AdaptionOptions {
  int64_t adapter_len = 10;
  std::optional<int64_t> adapter_layers;
  std::string target_modules = "self_attn";
};

AdaptionOptions read(peft::Options& in) {
  AdaptionOptions o;
  in.get("adapter_len", o.adapter_len, "tokens of each prompt").in_size_limit(o.adapter_len);
  in.get("adapter_layers", o.adapter_layers, "number of layers with a prompt, the last ones of the model; default: all")
      .in_size_limit(o.adapter_layers.value_or(1));
  in.get("target_modules", o.target_modules, "modules with a prompt: \"self_attn\"")
      .require(o.target_modules == "self_attn", "must be \"self_attn\"");
  return o;
}

/// The prompt passes through the attention's own k_proj and v_proj, without a position.
class AdaptionKeys final : public peft::VirtualKeys {
 public:
  AdaptionKeys(const peft::Linear& k_proj, const peft::Linear& v_proj, const AdaptionOptions& o, int64_t head_dim,
               const at::TensorOptions& tensor_options)
      : k_proj_(k_proj), v_proj_(v_proj), head_dim_(head_dim) {
    prompt_ = register_parameter("adaption_prompt",
                                 peft::init::normal({1, o.adapter_len, k_proj.in_features()}, 1, tensor_options));
    gate_ = register_parameter("adaption_gate", peft::init::zeros({1}, tensor_options));
  }

 protected:
  int64_t do_count() const override { return prompt_.size(1); }
  Tensor do_gate() const override { return gate_; }
  peft::KeysAndValues do_keys_and_values() const override {
    const Tensor prompt = prompt_[0].to(k_proj_.dtype());
    const auto heads = [&](const Tensor& rows) { return rows.view({rows.size(0), -1, head_dim_}); };
    return {heads(k_proj_.forward(prompt)), heads(v_proj_.forward(prompt))};
  }

 private:
  const peft::Linear &k_proj_, &v_proj_;  // of the attention that holds these keys
  int64_t head_dim_;
  Tensor prompt_, gate_;  // [1, adapter_len, hidden], [1]
};

/// Not an identity in a model whose o_proj has a bias: it is added once more for the prompt, as in HF PEFT.
class AdaptionPrompt final : public peft::Adapter, public peft::HfFormat {
 public:
  explicit AdaptionPrompt(AdaptionOptions options)
      : Adapter(/*is_identity_at_init=*/false), HfFormat(this), options_(std::move(options)) {}
  const peft::HfFormat& hf_format() const noexcept override { return *this; }

 protected:
  void do_attach(peft::Model& model, torch::Dtype dtype) override {
    const peft::MemoryScope scope(peft::MemoryComponent::adapter);
    const at::TensorOptions tensor_options = at::TensorOptions().dtype(dtype).device(model.device());
    const std::vector<peft::Attention*> attentions = model.attentions();
    const auto wanted = static_cast<std::size_t>(layers_of(model));
    if (wanted > attentions.size())
      throw peft::ConfigError("[adapter] adapter_layers: " + std::to_string(wanted) + " is more than the model's " +
                              std::to_string(attentions.size()) + " layers");
    for (std::size_t layer = attentions.size() - wanted; layer < attentions.size(); ++layer) {
      peft::Attention& attention = *attentions[layer];
      add_kv_prefix(attention, "adaption_prompt",
                    std::make_shared<AdaptionKeys>(*attention.k_proj, *attention.v_proj, options_,
                                                   attention.shape().head_dim, tensor_options));
    }
  }

  nlohmann::ordered_json do_config(const peft::Model& model) const override {
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
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<AdaptionPrompt>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("adaption_prompt", make); }

}  // namespace

PEFT_PLUGIN("adaption_prompt", "1.0.0", add)
