// Prefix tuning: trained keys and values before each example's own, in every layer (Li & Liang 2021, arXiv
// 2101.00190; Liu et al. 2022, arXiv 2110.07602).
#include <peft/adapters/init.h>
#include <peft/adapters/prompt_adapter.h>
#include <peft/models/model.h>
#include <peft/plugin.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's PrefixTuningConfig.
struct PrefixOptions {
  peft::PromptOptions prompt;
  bool prefix_projection = false;
  std::optional<int64_t> encoder_hidden_size;
  std::optional<std::string> init_weights;
};

PrefixOptions read(peft::Options& in) {
  PrefixOptions o;
  peft::read_prompt_options(in, o.prompt);
  in.get("prefix_projection", o.prefix_projection, "true: a network computes the prefix from narrower embeddings");
  in.get("encoder_hidden_size", o.encoder_hidden_size,
         "hidden size of that network; default: the size of a token's keys")
      .in_size_limit(o.encoder_hidden_size.value_or(1));
  in.get("init_weights", o.init_weights, "\"zero\": keys and values are zeros at first; default: normal")
      .require(!o.init_weights || *o.init_weights == "zero", "must be \"zero\"");
  return o;
}

/// Linear, tanh, Linear, with the parameter names of HF PEFT's PrefixEncoder.
class Projection final : public peft::PromptEncoder {
 public:
  Projection(const Tensor& embedding, int64_t hidden, int64_t width, bool zero_init) : PromptEncoder(embedding) {
    const auto transform = register_module("transform", std::make_shared<torch::nn::Module>());
    const auto linear = [&](const char* name, int64_t in, int64_t out, bool zeros) {
      const double bound = zeros ? 0 : 1 / std::sqrt(static_cast<double>(in));
      const auto layer = transform->register_module(name, std::make_shared<torch::nn::Module>());
      // register_parameter returns a reference that the next call may invalidate.
      const Tensor weight = peft::init::uniform({out, in}, bound, embedding.options());
      const Tensor bias = peft::init::uniform({out}, bound, embedding.options());
      layer->register_parameter("weight", weight);
      layer->register_parameter("bias", bias);
      return std::pair(weight, bias);
    };
    std::tie(in_, in_bias_) = linear("0", embedding.size(1), hidden, false);
    std::tie(out_, out_bias_) = linear("2", hidden, width, zero_init);
  }
  bool is_reparameterized() const override { return true; }

 protected:
  /// Computes only these columns of the last product, so that all layers together cost one full product.
  Tensor encode(int64_t first, int64_t count) const override {
    const Tensor hidden = at::linear(embedding(), in_, in_bias_).tanh();
    return at::linear(hidden, out_.narrow(0, first, count), out_bias_.narrow(0, first, count));
  }

 private:
  Tensor in_, in_bias_, out_, out_bias_;  // [hidden, token_dim], [hidden], [width, hidden], [width]
};

/// The keys and values of one attention. A row of the encoder's output has 2 · layers · kv_heads · head_dim elements,
/// the keys of a layer before its values.
class PrefixKeys final : public peft::VirtualKeys {
 public:
  PrefixKeys(std::shared_ptr<peft::PromptEncoder> encoder, int64_t layer, const peft::DecoderConfig& c)
      : encoder_(std::move(encoder)),
        heads_(c.num_key_value_heads),
        dim_(c.head_dim),
        first_(2 * layer * heads_ * dim_) {
    if (layer == 0) register_module("prefix_encoder", encoder_);  // the shared encoder is in the module tree once
  }

 protected:
  int64_t do_count() const override { return encoder_->embedding().size(0); }
  peft::KeysAndValues do_keys_and_values() const override {
    const Tensor keys_and_values = encoder_->output(first_, 2 * heads_ * dim_).reshape({-1, 2, heads_, dim_});
    return {keys_and_values.select(1, 0), keys_and_values.select(1, 1)};
  }

 private:
  std::shared_ptr<peft::PromptEncoder> encoder_;
  int64_t heads_, dim_, first_;
};

class PrefixTuning final : public peft::PromptAdapter {
 public:
  explicit PrefixTuning(PrefixOptions options)
      : PromptAdapter("PREFIX_TUNING", options.prompt), options_(std::move(options)) {}

 protected:
  Shape shape(const peft::Model& model) const override {
    const peft::DecoderConfig& c = model.config();
    const int64_t keys = c.num_key_value_heads * c.head_dim;
    return {keys, c.num_key_value_heads, 2 * c.num_hidden_layers * keys};
  }

  std::shared_ptr<peft::PromptEncoder> make_encoder(const peft::Model& model,
                                                    const at::TensorOptions& tensor_options) override {
    const auto [token_dim, heads, width] = shape(model);
    const int64_t n = prompt().num_virtual_tokens;
    const bool zero_init = options_.init_weights.has_value();
    if (options_.prefix_projection)
      return std::make_shared<Projection>(peft::init::normal({n, token_dim}, 1, tensor_options), hidden(model), width,
                                          zero_init);
    return std::make_shared<peft::PromptEncoder>(zero_init ? peft::init::zeros({n, width}, tensor_options)
                                                           : peft::init::normal({n, width}, 1, tensor_options));
  }

  void attach_encoder(peft::Model& model, const std::shared_ptr<peft::PromptEncoder>& encoder) override {
    const std::vector<peft::Attention*> attentions = model.attentions();
    for (std::size_t layer = 0; layer < attentions.size(); ++layer)
      add_kv_prefix(*attentions[layer], name(),
                    std::make_shared<PrefixKeys>(encoder, static_cast<int64_t>(layer), model.config()));
  }

  void write_config(const peft::Model& model, nlohmann::ordered_json& config) const override {
    config["encoder_hidden_size"] = hidden(model);
    config["init_weights"] = nullptr;
    if (options_.init_weights) config["init_weights"] = *options_.init_weights;
    config["prefix_projection"] = options_.prefix_projection;
  }

 private:
  int64_t hidden(const peft::Model& model) const {
    return options_.encoder_hidden_size.value_or(shape(model).token_dim);
  }
  PrefixOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<PrefixTuning>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("prefix_tuning", make); }

}  // namespace

PEFT_PLUGIN("prefix_tuning", "1.0.0", add)
