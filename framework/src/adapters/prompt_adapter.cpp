#include "peft/adapters/prompt_adapter.h"

#include <torch/torch.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "peft/adapters/targeted_adapter.h"
#include "peft/base/error.h"
#include "peft/models/model.h"
#include "peft/runtime/memory.h"

namespace peft {

namespace {

constexpr const char* kPromptEmbeddings = "prompt_embeddings";

/// The encoder's output, before each example.
class PromptTokens final : public VirtualTokens {
 public:
  PromptTokens(std::shared_ptr<PromptEncoder> encoder, int64_t width) : width_(width) {
    encoder_ = register_module("prompt_encoder", std::move(encoder));
  }

 protected:
  int64_t do_count() const override { return encoder_->embedding().size(0); }
  Tensor do_rows() const override { return encoder_->output(0, width_); }

 private:
  std::shared_ptr<PromptEncoder> encoder_;
  int64_t width_;
};

/// The encoder's output [n, width] in inference mode: without dropout, so that no random number is drawn.
Tensor inference_output(PromptEncoder& encoder, int64_t width) {
  const torch::NoGradGuard no_grad;
  const bool training = encoder.is_training();
  encoder.eval();
  const Tensor output = encoder.output(0, width);
  encoder.train(training);
  return output;
}

void check_option(const char* option, const std::optional<int64_t>& value, int64_t expected) {
  if (value && *value != expected)
    throw ConfigError("[adapter] " + std::string(option) + ": is " + std::to_string(*value) + ", but this model has " +
                      std::to_string(expected) + "; leave it out");
}

}  // namespace

void read_prompt_options(Options& in, PromptOptions& o) {
  in.get("num_virtual_tokens", o.num_virtual_tokens, "virtual tokens added to each example")
      .in_size_limit(o.num_virtual_tokens);
  const char* help = "default: the model's";
  in.get("token_dim", o.token_dim, help);
  in.get("num_attention_heads", o.num_attention_heads, help);
  in.get("num_layers", o.num_layers, help);
  in.get("num_transformer_submodules", o.num_transformer_submodules, "1, the default");
}

PromptEncoder::PromptEncoder(const Tensor& embedding) {
  const auto holder = register_module("embedding", std::make_shared<torch::nn::Module>());
  embedding_ = holder->register_parameter("weight", embedding);
}
PromptEncoder::~PromptEncoder() = default;

Tensor PromptEncoder::output(int64_t first, int64_t count) const {
  return is_fixed() ? fixed_.narrow(1, first, count) : encode(first, count);
}

Tensor PromptEncoder::encode(int64_t first, int64_t count) const { return embedding_.narrow(1, first, count); }

PromptAdapter::PromptAdapter(std::string peft_type, PromptOptions options)
    : Adapter(/*is_identity_at_init=*/false),
      HfFormat(this),
      peft_type_(std::move(peft_type)),
      name_(peft_type_),
      options_(std::move(options)) {
  std::ranges::transform(name_, name_.begin(), [](unsigned char c) { return std::tolower(c); });
}
PromptAdapter::~PromptAdapter() = default;

PromptAdapter::Shape PromptAdapter::shape(const Model& model) const {
  const DecoderConfig& c = model.config();
  return {c.hidden_size, c.num_attention_heads, c.hidden_size};
}

void PromptAdapter::do_attach(Model& model, torch::Dtype dtype) {
  const MemoryScope scope(MemoryComponent::adapter);
  const auto [token_dim, heads, width] = shape(model);
  check_option("token_dim", options_.token_dim, token_dim);
  check_option("num_attention_heads", options_.num_attention_heads, heads);
  check_option("num_layers", options_.num_layers, model.config().num_hidden_layers);
  check_option("num_transformer_submodules", options_.num_transformer_submodules, 1);
  const int64_t positions = model.config().max_position_embeddings, used = model.virtual_positions();
  if (used + options_.num_virtual_tokens >= positions)
    throw ConfigError("[adapter] num_virtual_tokens: the model has " + std::to_string(positions) +
                      " positions, which leaves none for the text" +
                      (used > 0 ? "; other adapters use " + std::to_string(used) : ""));
  const at::TensorOptions tensor_options = at::TensorOptions().dtype(dtype).device(model.device());
  encoder_ = make_encoder(model, tensor_options);
  if (encoder_->is_reparameterized()) output_ = torch::zeros({options_.num_virtual_tokens, width}, tensor_options);
  attach_encoder(model, encoder_);
}

void PromptAdapter::attach_encoder(Model& model, const std::shared_ptr<PromptEncoder>& encoder) {
  add_virtual_tokens(model.embedding(), name_, std::make_shared<PromptTokens>(encoder, shape(model).width));
}

std::vector<ParamGroup> PromptAdapter::do_groups(const Model& model) const {
  if (encoder_->is_fixed())
    throw ConfigError(
        "[adapter] init_from: the folder holds only the encoder's output, as HF PEFT saves it; to train further, use a "
        "folder that also has adapter_training.safetensors");
  return Adapter::do_groups(model);
}

nlohmann::ordered_json PromptAdapter::do_config(const Model& model) const {
  nlohmann::ordered_json config = common_config(peft_type_);
  const auto [token_dim, heads, width] = shape(model);
  config["modules_to_save"] = nullptr;
  config["num_attention_heads"] = heads;
  config["num_layers"] = model.config().num_hidden_layers;
  config["num_transformer_submodules"] = 1;
  config["num_virtual_tokens"] = options_.num_virtual_tokens;
  config["token_dim"] = token_dim;
  write_config(model, config);
  return sorted_config(config);
}

StateDict PromptAdapter::do_to_hf(const Model&) const {
  if (!encoder_->is_reparameterized()) return {{kPromptEmbeddings, encoder_->embedding()}};
  if (!encoder_->is_fixed()) output_.copy_(inference_output(*encoder_, output_.size(1)));
  return {{kPromptEmbeddings, output_}};
}

/// HF PEFT wraps no model here, so the keys are shorter than hf_key's.
StateDict PromptAdapter::do_base_tensors(const Model& model) const {
  StateDict state;
  if (!model.vocabulary_resized()) return state;
  state.emplace("base_model." + model.embedding().path() + ".weight", model.embedding().dense());
  if (model.output_embedding() != nullptr && !model.config().tie_word_embeddings)
    state.emplace("base_model." + model.output_embedding()->path() + ".weight", model.output_embedding()->dense());
  return state;
}

StateDict PromptAdapter::do_encoder_state_dict(const Model&) const {
  StateDict state;
  if (!encoder_->is_reparameterized() || encoder_->is_fixed()) return state;
  for (const auto& item : encoder_->named_parameters()) state.emplace("prompt_encoder." + item.key(), item.value());
  return state;
}

void PromptAdapter::do_on_weights_loaded(bool complete) const {
  if (!encoder_->is_reparameterized()) return;
  if (!complete) return encoder_->fix(output_);
  const Tensor output = inference_output(*encoder_, output_.size(1));
  if (!at::allclose(output, output_, 1e-3, 1e-3 * output_.abs().max().item<double>()))
    throw InputError(
        "adapter_training.safetensors does not belong to the adapter_model.safetensors in its folder: the "
        "encoder's output differs from prompt_embeddings");
}

}  // namespace peft
