#include "peft/adapters/prompt_adapter.h"

#include <torch/torch.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "peft/adapters/targeted_adapter.h"
#include "peft/base/error.h"
#include "peft/models/decoder.h"
#include "peft/runtime/memory.h"

namespace peft {

namespace {

constexpr const char* kKey = "prompt_embeddings";

/// Puts what the encoder makes in front of each example.
class PromptLayer final : public VirtualTokens {
 public:
  PromptLayer(std::shared_ptr<PromptEncoder> encoder, int64_t width) : width_(width) {
    encoder_ = register_module("prompt_encoder", std::move(encoder));
  }
  int64_t count() const override { return encoder_->embedding().size(0); }
  Tensor rows() const override { return encoder_->output(0, width_); }

 private:
  std::shared_ptr<PromptEncoder> encoder_;
  int64_t width_;
};

/// What the encoder makes of itself at inference: without dropout, and no random number is drawn. [n, width]
Tensor output_of(PromptEncoder& encoder, int64_t width) {
  const torch::NoGradGuard no_grad;
  const bool training = encoder.is_training();
  encoder.eval();
  const Tensor output = encoder.output(0, width);
  encoder.train(training);
  return output;
}

void require(const char* option, const std::optional<int64_t>& given, int64_t own) {
  if (given && *given != own)
    throw ConfigError("[adapter] " + std::string(option) + ": " + std::to_string(*given) + " is not this model's, " +
                      std::to_string(own) + "; it may be left out");
}

}  // namespace

void read_prompt_options(Options& in, PromptOptions& o) {
  in.get("num_virtual_tokens", o.num_virtual_tokens, "how many virtual tokens each example is given")
      .in_size_limit(o.num_virtual_tokens);
  const char* help = "the model's own; may be left out";
  in.get("token_dim", o.token_dim, help);
  in.get("num_attention_heads", o.num_attention_heads, help);
  in.get("num_layers", o.num_layers, help);
  in.get("num_transformer_submodules", o.num_transformer_submodules, "1; may be left out");
}

PromptEncoder::PromptEncoder(const Tensor& embedding) {
  const auto holder = register_module("embedding", std::make_shared<torch::nn::Module>());
  embedding_ = holder->register_parameter("weight", embedding);
}
PromptEncoder::~PromptEncoder() = default;

Tensor PromptEncoder::output(int64_t first, int64_t count) const {
  return fixed() ? fixed_.narrow(1, first, count) : encode(first, count);
}

Tensor PromptEncoder::encode(int64_t first, int64_t count) const { return embedding_.narrow(1, first, count); }

PromptAdapter::PromptAdapter(std::string peft_type, PromptOptions options)
    : peft_type_(std::move(peft_type)), name_(peft_type_), options_(std::move(options)) {
  std::ranges::transform(name_, name_.begin(), [](unsigned char c) { return std::tolower(c); });
}
PromptAdapter::~PromptAdapter() = default;

PromptAdapter::Shape PromptAdapter::shape(const Model& model) const {
  const DecoderConfig& c = model.config();
  return {c.hidden_size, c.num_attention_heads, c.hidden_size};
}

void PromptAdapter::attach(Model& model, torch::Dtype dtype) {
  const MemoryScope scope(MemoryComponent::adapter);
  const auto [token_dim, heads, width] = shape(model);
  require("token_dim", options_.token_dim, token_dim);
  require("num_attention_heads", options_.num_attention_heads, heads);
  require("num_layers", options_.num_layers, model.config().num_hidden_layers);
  require("num_transformer_submodules", options_.num_transformer_submodules, 1);
  const int64_t room = model.config().max_position_embeddings, taken = model.virtual_positions();
  if (taken + options_.num_virtual_tokens >= room)
    throw ConfigError("[adapter] num_virtual_tokens: the model was made for at most " + std::to_string(room) +
                      " positions, which leaves none for the text" +
                      (taken > 0 ? "; other adapters take " + std::to_string(taken) : ""));
  const at::TensorOptions tensor_options = at::TensorOptions().dtype(dtype).device(model.device());
  encoder_ = make_encoder(model, tensor_options);
  if (encoder_->reparameterized()) made_ = torch::zeros({options_.num_virtual_tokens, width}, tensor_options);
  place_encoder(model, encoder_);
}

void PromptAdapter::place_encoder(Model& model, const std::shared_ptr<PromptEncoder>& encoder) {
  add_layer(model.embedding(), name_, std::make_shared<PromptLayer>(encoder, shape(model).width));
}

std::vector<ParamGroup> PromptAdapter::groups(const Model& model) const {
  if (encoder_->fixed())
    throw ConfigError(
        "[adapter] init_from: the folder holds only what the encoder made, as HF PEFT saves it; training " +
        std::string("goes on from a folder that has adapter_training.safetensors too"));
  return Adapter::groups(model);
}

nlohmann::ordered_json PromptAdapter::hf_config(const Model& model) const {
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

StateDict PromptAdapter::to_hf(const Model&) const {
  if (!encoder_->reparameterized()) return {{kKey, encoder_->embedding()}};
  if (!encoder_->fixed()) made_.copy_(output_of(*encoder_, made_.size(1)));
  return {{kKey, made_}};
}

StateDict PromptAdapter::base_tensors_saved_by_hf(const Model& model) const {
  StateDict state;
  if (!model.vocabulary_resized()) return state;
  state.emplace("base_model." + model.embedding().path() + ".weight", model.embedding().frozen().weight);
  if (!model.config().tie_word_embeddings)
    state.emplace("base_model." + model.lm_head().path() + ".weight", model.lm_head().frozen().weight);
  return state;
}

StateDict PromptAdapter::encoder_state_dict(const Model&) const {
  StateDict state;
  if (!encoder_->reparameterized() || encoder_->fixed()) return state;
  for (const auto& item : encoder_->named_parameters()) state.emplace("prompt_encoder." + item.key(), item.value());
  return state;
}

void PromptAdapter::on_weights_loaded(bool whole) {
  if (!encoder_->reparameterized()) return;
  if (!whole) return encoder_->fix(made_);
  const Tensor now = output_of(*encoder_, made_.size(1));
  if (!at::allclose(now, made_, 1e-3, 1e-3 * made_.abs().max().item<double>()))
    throw InputError("adapter_training.safetensors does not belong to the adapter_model.safetensors beside it: " +
                     std::string("the one's encoder does not make the other's prompt_embeddings"));
}

}  // namespace peft
