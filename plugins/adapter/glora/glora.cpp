// GLoRA: Generalized Low-Rank Adaptation (Chavan et al. 2023, arXiv 2306.07967): W' = W + W ⊙ A + B and
// b' = b + b ⊙ D + E + W·C, each of the five a matrix of low rank, a vector, one number or nothing.
#include <peft/delta_layer.h>
#include <peft/init.h>
#include <peft/plugin.h>
#include <peft/targeted_adapter.h>
#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// HF PEFT's GloraConfig: its names, its defaults.
struct GloraOptions {
  int64_t r = 8;
  std::string config_A_B = "lora";
  std::string config_C = "lora";
  std::string config_D_E = "constant";
  bool init_weights = true;
  peft::Targets targets{
      .target_modules = peft::StringList{"q_proj", "v_proj"}, .can_exclude = false, .by_layer = false};
};

void read_form(peft::Options& in, const char* key, std::string& form, const char* help, const peft::StringList& known) {
  std::string rule = "must be one of";
  for (const std::string& one : known) rule += " \"" + one + "\"";
  in.get(key, form, help).require(std::find(known.begin(), known.end(), form) != known.end(), rule);
}

GloraOptions read(peft::Options& in) {
  GloraOptions o;
  in.get("r", o.r, "rank of those that are matrices").require(o.r > 0, "must be positive");
  read_form(in, "config_A_B", o.config_A_B, "what A and B are, which change the weight",
            {"lora", "vector", "constant", "none"});
  read_form(in, "config_C", o.config_C, "what C is, which adds W·C to the bias, if there is one",
            {"lora", "vector", "none"});
  read_form(in, "config_D_E", o.config_D_E, "what D and E are, which change the bias, if there is one",
            {"vector", "constant", "none"});
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: no change at first; false: all random, for tests");
  return o;
}

/// One of the five, of the shape that it stands for or one that spreads to it.
class Support final : public torch::nn::Module {
 public:
  Support(const std::string& form, const std::vector<int64_t>& shape, const GloraOptions& o,
          const at::TensorOptions& options) {
    const auto drawn = [&](at::IntArrayRef of) { return peft::init::kaiming_uniform(of, options); };
    const auto start = [&](const std::vector<int64_t>& of) {
      if (o.init_weights) return peft::init::zeros(of, options);
      return of.size() == 1 ? drawn({1, of[0]}).flatten() : drawn(of);
    };
    if (form == "lora") {
      down_ = register_parameter("Xd", start({shape[0], o.r}));
      up_ = register_parameter("Xu", drawn({o.r, shape[1]}));
    } else if (form == "vector") {
      whole_ = register_parameter("X", start(shape.size() == 1 ? shape : std::vector<int64_t>{shape[0], 1}));
    } else if (form == "constant") {
      whole_ = register_parameter(
          "X", o.init_weights ? peft::init::zeros({1}, options) : peft::init::normal({1}, 0.02, options));
    } else {
      whole_ = register_buffer("zeros", torch::zeros(shape, options));
    }
  }
  Tensor value() const { return whole_.defined() ? whole_ : at::mm(down_, up_); }

 private:
  Tensor down_, up_, whole_;
};

class GloraLayer final : public peft::DeltaLayer {
 public:
  GloraLayer(const peft::Linear& site, const GloraOptions& o, const at::TensorOptions& form)
      : weight_(site.frozen().weight), bias_(site.frozen().bias) {
    const int64_t in = site.in_features(), out = site.out_features();
    const auto support = [&](const char* name, const std::string& kind, const std::vector<int64_t>& shape) {
      return register_module(name, std::make_shared<Support>(kind, shape, o, form));
    };
    const std::string of_C = bias_.defined() ? o.config_C : "none", of_D_E = bias_.defined() ? o.config_D_E : "none";
    A_ = support("glora_A", o.config_A_B, {out, in});
    B_ = support("glora_B", o.config_A_B, {out, in});
    C_ = support("glora_C", of_C, {in, 1});
    D_ = support("glora_D", of_D_E, {out});
    E_ = support("glora_E", of_D_E, {out});
  }
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const Tensor y = DeltaLayer::forward(x, next);
    return bias_.defined() ? y + shift().to(y.scalar_type()) : y;
  }
  bool fold(peft::Affine& affine) const override {
    const torch::NoGradGuard no_grad;
    if (bias_.defined()) affine.bias = affine.bias + shift().to(affine.bias.scalar_type());
    return DeltaLayer::fold(affine);
  }

 protected:
  Tensor delta(torch::Dtype dtype) const override {
    const Tensor A = A_->value(), B = B_->value();
    return (weight_.to(A.scalar_type()) * A + B).to(dtype);
  }

 private:
  /// What is added to the bias, [out].
  Tensor shift() const {
    const Tensor C = C_->value(), D = D_->value();
    return bias_.to(D.scalar_type()) * D + E_->value() + at::mm(weight_.to(C.scalar_type()), C).flatten();
  }
  Tensor weight_, bias_;  // the frozen ones: [out, in], [out] or undefined
  std::shared_ptr<Support> A_, B_, C_, D_, E_;
};

class Glora final : public peft::TargetedAdapter {
 public:
  explicit Glora(GloraOptions options) : TargetedAdapter("GLORA", options.targets), options_(std::move(options)) {}
  bool starts_as_base() const override { return options_.init_weights; }

 protected:
  std::shared_ptr<peft::Layer> make_layer(const peft::Linear& site, std::size_t,
                                          const at::TensorOptions& form) override {
    return std::make_shared<GloraLayer>(site, options_, form);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["bias"] = "none";
    config["config_A_B"] = options_.config_A_B;
    config["config_C"] = options_.config_C;
    config["config_D_E"] = options_.config_D_E;
    config["init_weights"] = options_.init_weights;
    config["r"] = options_.r;
  }

 private:
  GloraOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Glora>(read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("glora", make); }

}  // namespace

PEFT_PLUGIN("glora", "1.0.0", add)
