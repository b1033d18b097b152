// DEFT: Decompositional Efficient Fine-Tuning: a subspace of what the layer puts out is removed, and a trained low-rank
// update put in its place: W' = (1 − Q·Pᵀ)·W + s·Q·R.
#include <peft/factored_layer.h>
#include <peft/init.h>
#include <peft/plugin.h>
#include <peft/targeted_adapter.h>
#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// HF PEFT's DeftConfig: its names, its defaults.
struct DeftOptions {
  int64_t r = 8;
  std::string decomposition_method = "relu";
  std::optional<int64_t> alpha;
  double init_scale = 1;
  bool para = false;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

DeftOptions read(peft::Options& in) {
  DeftOptions o;
  in.get("r", o.r, "dimensions of the subspace, at most the layer's outputs").require(o.r > 0, "must be positive");
  in.get("decomposition_method", o.decomposition_method, "how it is removed: \"relu\", or \"qr\" (at right angles)")
      .require(o.decomposition_method == "relu" || o.decomposition_method == "qr", "must be \"relu\" or \"qr\"");
  in.get("alpha", o.alpha, "what is put in is scaled by alpha / r; absent: not scaled")
      .require(!o.alpha || *o.alpha > 0, "must be positive");
  in.get("para", o.para, "only remove (PaRa)");
  double dropout = 0;
  in.get("deft_dropout", dropout, "0: not supported").require(dropout == 0, "is not supported here: must be 0");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: what is put in is at first what is removed; false: normal, for tests");
  in.get("init_scale", o.init_scale, "of that normal start, in parts of 0.02")
      .require(o.init_scale > 0, "must be positive");
  return o;
}

class DeftLayer final : public peft::FactoredLayer {
 public:
  DeftLayer(const peft::Linear& site, const DeftOptions& o, const at::TensorOptions& form)
      : qr_(o.decomposition_method == "qr"), weight_(site.frozen().weight) {
    const int64_t r = std::min(o.r, site.out_features());
    if (o.alpha) scale_ = static_cast<double>(*o.alpha) / static_cast<double>(r);
    P_ = register_parameter("deft_P", peft::init::normal({site.out_features(), r}, 0.02, form));
    if (o.para) return;
    const torch::NoGradGuard no_grad;
    R_ = register_parameter("deft_R", o.init_weights
                                          ? removed(directions().second) / scale_
                                          : peft::init::normal({r, site.in_features()}, 0.02 * o.init_scale, form));
  }

 protected:
  peft::LowRank factors() const override {
    const auto [Q, right] = directions();
    const Tensor out = removed(right);
    return {R_.defined() ? R_ * scale_ - out : -out, Q, 1};
  }

 private:
  /// Q and what takes its part away, [out, r] each.
  std::pair<Tensor, Tensor> directions() const {
    if (!qr_) return {P_, P_.relu()};
    const Tensor Q = std::get<0>(at::linalg_qr(P_));
    return {Q, Q};
  }
  Tensor removed(const Tensor& right) const { return at::mm(right.t(), weight_.to(right.scalar_type())); }
  bool qr_;
  double scale_ = 1;
  Tensor weight_, P_, R_;  // [out, in]; [out, r], [r, in] or undefined
};

class Deft final : public peft::TargetedAdapter {
 public:
  explicit Deft(DeftOptions options) : TargetedAdapter("DEFT", options.targets), options_(std::move(options)) {}
  bool starts_as_base() const override { return options_.init_weights && !options_.para; }

 protected:
  std::shared_ptr<peft::Layer> make_layer(const peft::Linear& site, std::size_t,
                                          const at::TensorOptions& form) override {
    return std::make_shared<DeftLayer>(site, options_, form);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["alpha"] = nullptr;
    if (options_.alpha) config["alpha"] = *options_.alpha;
    config["bias"] = "none";
    config["decomposition_method"] = options_.decomposition_method;
    config["deft_dropout"] = 0.0;
    config["fan_in_fan_out"] = false;
    config["init_scale"] = options_.init_scale;
    config["init_weights"] = options_.init_weights;
    config["para"] = options_.para;
    config["r"] = options_.r;
  }

 private:
  DeftOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Deft>(read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("deft", make); }

}  // namespace

PEFT_PLUGIN("deft", "1.0.0", add)
