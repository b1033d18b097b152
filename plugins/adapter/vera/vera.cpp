// VeRA: Vector-based Random Matrix Adaptation (Kopiczko et al. 2023, arXiv 2310.11454): ΔW = diag(b)·B·diag(d)·A, with
// frozen random A and B that all layers share.
#include <ATen/CPUGeneratorImpl.h>
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/plugin.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's VeraConfig.
struct VeraOptions {
  int64_t r = 256;
  int64_t projection_prng_key = 0;
  bool save_projection = true;
  double vera_dropout = 0;
  double d_initial = 0.1;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}, .has_exclude_modules = false};
};

VeraOptions read(peft::Options& in) {
  VeraOptions o;
  in.get("r", o.r, "rank of the shared matrices").in_size_limit(o.r);
  in.get("projection_prng_key", o.projection_prng_key, "seed of the shared matrices")
      .require(o.projection_prng_key >= 0, "must not be negative");
  in.get("save_projection", o.save_projection, "save the shared matrices; false: draw them again on load");
  in.get("vera_dropout", o.vera_dropout, "dropout probability of the update's input in training")
      .require(o.vera_dropout >= 0 && o.vera_dropout < 1, "must be at least 0 and below 1");
  in.get("d_initial", o.d_initial, "initial value of d");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: b zero, d d_initial; false: b ones, d normal, for tests");
  return o;
}

class VeraLayer final : public peft::FactoredLayer {
 public:
  VeraLayer(const peft::Linear& site, const Tensor& A, const Tensor& B, const VeraOptions& o,
            const at::TensorOptions& tensor_options)
      : FactoredLayer(o.vera_dropout), A_(A.slice(1, 0, site.in_features())), B_(B.slice(0, 0, site.out_features())) {
    b_ = register_parameter("vera_lambda_b", o.init_weights ? peft::init::zeros({site.out_features()}, tensor_options)
                                                            : torch::ones({site.out_features()}, tensor_options));
    d_ = register_parameter("vera_lambda_d", o.init_weights ? torch::full({o.r}, o.d_initial, tensor_options)
                                                            : peft::init::normal({o.r}, 1, tensor_options));
  }

 protected:
  peft::LowRank factors() const override { return {d_.unsqueeze(1) * A_, b_.unsqueeze(1) * B_, 1}; }

 private:
  Tensor A_, B_, b_, d_;  // [r, in], [out, r], views of the shared ones; [out], [r]
};

class Vera final : public peft::TargetedAdapter {
 public:
  explicit Vera(VeraOptions options)
      : TargetedAdapter("VERA", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites,
               const at::TensorOptions& tensor_options) override;
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<VeraLayer>(site, A_, B_, options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["bias"] = "none";
    config["d_initial"] = options_.d_initial;
    config["fan_in_fan_out"] = false;
    config["init_weights"] = options_.init_weights;
    config["projection_prng_key"] = options_.projection_prng_key;
    config["r"] = options_.r;
    config["save_projection"] = options_.save_projection;
    config["vera_dropout"] = options_.vera_dropout;
  }

 private:
  VeraOptions options_;
  Tensor A_, B_;  // [r, max inputs], [max outputs, r]
};

/// Draws bit-identically to HF PEFT (_kaiming_init: uniform in ±√(6 / columns), one CPU generator, A first), because a
/// file saved with save_projection = false relies on it.
void Vera::prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions& tensor_options) {
  int64_t in = 0, out = 0;
  for (const peft::Site* site : sites)
    if (const auto* linear = dynamic_cast<const peft::Linear*>(site)) {
      in = std::max(in, linear->in_features());
      out = std::max(out, linear->out_features());
    }
  at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(options_.projection_prng_key));
  const auto drawn = [&](int64_t rows, int64_t columns) {
    const double bound = std::sqrt(3.0) * (std::sqrt(2.0) / std::sqrt(static_cast<double>(columns)));
    return torch::empty({rows, columns}, torch::kFloat)
        .uniform_(-bound, bound, generator)
        .to(tensor_options.device(), tensor_options.dtype());
  };
  A_ = drawn(options_.r, in);
  B_ = drawn(out, options_.r);
  if (!options_.save_projection) return;
  share("vera_A", A_);
  share("vera_B", B_);
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Vera>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("vera", make); }

}  // namespace

PEFT_PLUGIN("vera", "1.0.0", add)
