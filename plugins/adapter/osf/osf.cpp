// OSF: Orthogonal Subspace Fine-tuning (Nayak et al. 2025, arXiv 2504.07097): the weight's small singular directions
// train, and their gradients are kept at right angles to the large ones, which stay.
#include <peft/error.h>
#include <peft/factored_layer.h>
#include <peft/init.h>
#include <peft/plugin.h>
#include <peft/targeted_adapter.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// HF PEFT's OSFConfig: its names, and its defaults for Llama.
struct OsfOptions {
  std::optional<double> effective_rank;
  bool init_weights = true;
  peft::Targets targets{
      .target_modules = peft::StringList{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj"},
      .can_exclude = false,
      .by_layer = false};

  /// Singular directions that stay, of `all`.
  int64_t kept(int64_t all) const {
    if (!effective_rank) return all / 2;
    const double wanted = *effective_rank < 1 ? static_cast<double>(all) * *effective_rank : *effective_rank;
    return std::min(all, static_cast<int64_t>(wanted));
  }
};

OsfOptions read(peft::Options& in) {
  OsfOptions o;
  in.get("effective_rank", o.effective_rank,
         "singular directions that stay: a number, or below 1 a part of all; absent: half of them")
      .require(!o.effective_rank || (*o.effective_rank > 0 &&
                                     (*o.effective_rank < 1 || *o.effective_rank == std::floor(*o.effective_rank))),
               "must be between 0 and 1, or a whole number");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: start as the base; false: random, for tests");
  return o;
}

class OsfLayer final : public peft::FactoredLayer {
 public:
  OsfLayer(const peft::Linear& site, int64_t kept, bool as_base, const at::TensorOptions& form) {
    const torch::NoGradGuard no_grad;
    const Tensor weight = site.frozen().weight;
    const auto wide = weight.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
    const auto [U, S, V] = at::linalg_svd(weight.to(wide), /*full_matrices=*/false);
    U_high_ = U.slice(1, 0, kept).to(form), V_high_ = V.slice(0, 0, kept).to(form);
    const Tensor u = U.slice(1, kept).to(form), s = S.slice(0, kept).to(form), v = V.slice(0, kept).to(form);
    was_B_ = u * s, was_A_ = v.clone();
    const auto holder = register_module("osf_svd_params", std::make_shared<torch::nn::Module>());
    const auto start = [&](const Tensor& own) {
      return as_base ? own.clone(at::MemoryFormat::Contiguous) : peft::init::normal(own.sizes(), 1, form);
    };
    U_ = holder->register_parameter("U_low", start(u));
    S_ = holder->register_parameter("S_low", start(s));
    V_ = holder->register_parameter("V_low", start(v));
  }
  /// Takes out of the gradients what would move the directions that stay.
  void project() {
    const torch::NoGradGuard no_grad;
    if (U_.grad().defined()) U_.mutable_grad() -= at::mm(U_high_, at::mm(U_high_.t(), U_.grad()));
    if (V_.grad().defined()) V_.mutable_grad() -= at::mm(at::mm(V_.grad(), V_high_.t()), V_high_);
  }

 protected:
  /// The small directions as they are, less what they were.
  peft::LowRank factors() const override { return {at::cat({V_, was_A_}), at::cat({U_ * S_, -was_B_}, 1), 1}; }

 private:
  Tensor U_high_, V_high_;  // [out, kept], [kept, in]
  Tensor was_A_, was_B_;    // [low, in], [out, low]
  Tensor U_, S_, V_;        // [out, low], [low], [low, in]
};

class Osf final : public peft::TargetedAdapter {
 public:
  explicit Osf(OsfOptions options) : TargetedAdapter("OSF", options.targets), options_(std::move(options)) {}
  bool starts_as_base() const override { return options_.init_weights; }
  void after_backward(const peft::StepPosition&) override {
    for (const auto& layer : layers_) layer->project();
  }

 protected:
  std::shared_ptr<peft::Layer> make_layer(const peft::Linear& site, std::size_t,
                                          const at::TensorOptions& form) override {
    const int64_t all = std::min(site.in_features(), site.out_features()), kept = options_.kept(all);
    if (kept == all)
      throw peft::ConfigError("[adapter] effective_rank: of the " + std::to_string(all) + " directions of '" +
                              peft::printable(site.path()) + "' none is left to train");
    return layers_.emplace_back(std::make_shared<OsfLayer>(site, kept, options_.init_weights, form));
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["effective_rank"] = nullptr;
    if (options_.effective_rank) config["effective_rank"] = peft::config_number(*options_.effective_rank);
    config["init_weights"] = options_.init_weights;
    config["rank_pattern"] = nullptr;
    config["target_svd_config"] = nullptr;
  }

 private:
  OsfOptions options_;
  std::vector<std::shared_ptr<OsfLayer>> layers_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Osf>(read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("osf", make); }

}  // namespace

PEFT_PLUGIN("osf", "1.0.0", add)
