// P-tuning: virtual tokens before each example, computed by a small network (Liu et al. 2021, arXiv 2103.10385).
#include <peft/adapters/init.h>
#include <peft/adapters/prompt_adapter.h>
#include <peft/models/model.h>
#include <peft/plugin.h>
#include <torch/torch.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's PromptEncoderConfig.
struct PTuningOptions {
  peft::PromptOptions prompt;
  std::string encoder_reparameterization_type = "MLP";
  std::optional<int64_t> encoder_hidden_size;
  int64_t encoder_num_layers = 2;
  double encoder_dropout = 0;

  bool lstm() const { return encoder_reparameterization_type == "LSTM"; }
};

PTuningOptions read(peft::Options& in) {
  PTuningOptions o;
  peft::read_prompt_options(in, o.prompt);
  in.get("encoder_reparameterization_type", o.encoder_reparameterization_type,
         "network: \"MLP\", three layers; \"LSTM\", bidirectional, then two layers")
      .require(o.encoder_reparameterization_type == "MLP" || o.lstm(), R"(must be "MLP" or "LSTM")");
  in.get("encoder_hidden_size", o.encoder_hidden_size, "hidden size of the network; default: the model's")
      .in_size_limit(o.encoder_hidden_size.value_or(1));
  in.get("encoder_num_layers", o.encoder_num_layers, "layers of the LSTM").in_size_limit(o.encoder_num_layers, 100);
  in.get("encoder_dropout", o.encoder_dropout, "dropout probability between layers of the LSTM")
      .require(o.encoder_dropout >= 0 && o.encoder_dropout < 1, "must be at least 0 and below 1");
  return o;
}

/// Has the parameter names of HF PEFT's PromptEncoder.
class Encoder final : public peft::PromptEncoder {
 public:
  Encoder(const Tensor& embedding, int64_t width, const PTuningOptions& o) : PromptEncoder(embedding) {
    const int64_t hidden = embedding.size(1);
    if (o.lstm()) {
      lstm_ = register_module("lstm_head", torch::nn::LSTM(torch::nn::LSTMOptions(hidden, width)
                                                               .num_layers(o.encoder_num_layers)
                                                               .dropout(o.encoder_dropout)
                                                               .bidirectional(true)
                                                               .batch_first(true)));
      mlp_ = torch::nn::Sequential(torch::nn::Linear(2 * width, 2 * width), torch::nn::ReLU(),
                                   torch::nn::Linear(2 * width, hidden));
    } else {
      mlp_ = torch::nn::Sequential(torch::nn::Linear(hidden, width), torch::nn::ReLU(), torch::nn::Linear(width, width),
                                   torch::nn::ReLU(), torch::nn::Linear(width, hidden));
    }
    register_module("mlp_head", mlp_);
    to(embedding.device(), embedding.scalar_type());
    init_parameters(width);
  }
  bool is_reparameterized() const override { return true; }

 protected:
  Tensor encode(int64_t first, int64_t count) const override {
    // forward() of torch's modules is not const.
    auto lstm = lstm_;
    auto mlp = mlp_;
    const Tensor in = lstm ? std::get<0>(lstm->forward(embedding().unsqueeze(0))).squeeze(0) : embedding();
    return mlp->forward(in).narrow(1, first, count);
  }

 private:
  /// torch's distributions, but the same values on all devices: uniform in ±1/√inputs, for an LSTM in ±1/√width.
  void init_parameters(int64_t width) {
    const torch::NoGradGuard no_grad;
    for (const auto& layer : *mlp_)
      for (Tensor& parameter : layer.ptr()->parameters()) {
        const auto* linear = dynamic_cast<const torch::nn::LinearImpl*>(layer.ptr().get());
        const double bound = 1 / std::sqrt(static_cast<double>(linear->weight.size(1)));
        parameter.copy_(peft::init::uniform(parameter.sizes(), bound, parameter.options()));
      }
    if (!lstm_) return;
    const double bound = 1 / std::sqrt(static_cast<double>(width));
    for (Tensor& parameter : lstm_->parameters())
      parameter.copy_(peft::init::uniform(parameter.sizes(), bound, parameter.options()));
  }

  torch::nn::LSTM lstm_{nullptr};
  torch::nn::Sequential mlp_{nullptr};
};

class PTuning final : public peft::PromptAdapter {
 public:
  explicit PTuning(PTuningOptions options) : PromptAdapter("P_TUNING", options.prompt), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::PromptEncoder> make_encoder(const peft::Model& model,
                                                    const at::TensorOptions& tensor_options) override {
    const Tensor embedding =
        peft::init::normal({prompt().num_virtual_tokens, model.config().hidden_size}, 1, tensor_options);
    return std::make_shared<Encoder>(embedding, width(model), options_);
  }

  void write_config(const peft::Model& model, nlohmann::ordered_json& config) const override {
    config["encoder_dropout"] = options_.encoder_dropout;
    config["encoder_hidden_size"] = width(model);
    config["encoder_num_layers"] = options_.encoder_num_layers;
    config["encoder_reparameterization_type"] = options_.encoder_reparameterization_type;
  }

 private:
  int64_t width(const peft::Model& model) const {
    return options_.encoder_hidden_size.value_or(model.config().hidden_size);
  }
  PTuningOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<PTuning>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("p_tuning", make); }

}  // namespace

PEFT_PLUGIN("p_tuning", "1.0.0", add)
