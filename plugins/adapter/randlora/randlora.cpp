// RandLoRA: Full-rank parameter-efficient fine-tuning (Albert et al. 2025, arXiv 2502.00987): a sum of low-rank updates
// with frozen random factors that all layers share; the weights of the sum are trainable.
#include <ATen/CPUGeneratorImpl.h>
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/plugin.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's RandLoraConfig.
struct RandLoraOptions {
  int64_t r = 32;
  double randlora_alpha = 640;
  int64_t projection_prng_key = 0;
  bool save_projection = true;
  bool sparse = false;
  bool very_sparse = false;
  double randlora_dropout = 0;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}, .has_exclude_modules = false};
};

RandLoraOptions read(peft::Options& in) {
  RandLoraOptions o;
  in.get("r", o.r, "rank of each random base; a smaller rank means more bases and more trainable parameters")
      .in_size_limit(o.r);
  in.get("randlora_alpha", o.randlora_alpha, "the update is scaled by randlora_alpha / r");
  in.get("projection_prng_key", o.projection_prng_key, "seed of the shared bases")
      .require(o.projection_prng_key >= 0, "must not be negative");
  in.get("save_projection", o.save_projection, "save the shared bases; false: draw them again on load");
  in.get("sparse", o.sparse, "bases with values -1, 0 and 1, two thirds of them 0");
  in.get("very_sparse", o.very_sparse, "as sparse, with 1 of sqrt(layer size) values not 0");
  in.get("randlora_dropout", o.randlora_dropout, "dropout probability of the update's input in training")
      .require(o.randlora_dropout >= 0 && o.randlora_dropout < 1, "must be at least 0 and below 1");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: lambda zero; false: lambda normal, for tests");
  return o;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// The random bases that all layers share: A for the smaller dimension, B for the larger.
struct Bases {
  Tensor A;  ///< [r, 1, smaller]
  Tensor B;  ///< [larger, bases, r]
};

class RandLoraLayer final : public peft::FactoredLayer {
 public:
  RandLoraLayer(const peft::Linear& site, const Bases& shared, const RandLoraOptions& o,
                const at::TensorOptions& tensor_options)
      : FactoredLayer(o.randlora_dropout),
        narrow_input_(site.in_features() <= site.out_features()),
        scale_(o.randlora_alpha / static_cast<double>(o.r)) {
    const auto [smaller, larger] = std::minmax({site.in_features(), site.out_features()});
    const int64_t bases = ceil_div(smaller, o.r);
    A_ = shared.A.slice(2, 0, smaller);
    B_ = shared.B.slice(0, 0, larger).slice(1, 0, bases);
    const int64_t share = o.init_weights ? std::max(bases, smaller) : larger;
    lambda_ =
        register_parameter("randlora_lambda", o.init_weights ? peft::init::zeros({o.r, bases}, tensor_options)
                                                             : peft::init::normal({o.r, bases}, 1, tensor_options));
    gamma_ = register_parameter("randlora_gamma",
                                torch::full({bases, smaller}, 1 / static_cast<double>(share), tensor_options));
  }

 protected:
  peft::LowRank factors() const override {
    const Tensor mixed = (lambda_.unsqueeze(2) * A_ * gamma_.unsqueeze(0)).flatten(0, 1);
    const Tensor wide = B_.flatten(1);
    if (narrow_input_) return {mixed, wide, scale_};
    return {wide.t(), mixed.t(), scale_};
  }

 private:
  bool narrow_input_;
  double scale_;
  Tensor A_, B_;           // [r, 1, smaller], [larger, bases, r], views of the shared ones
  Tensor lambda_, gamma_;  // [r, bases], [bases, smaller]
};

/// Draws bit-identically to HF PEFT, because a file saved with save_projection = false relies on it.
class BaseGenerator {
 public:
  explicit BaseGenerator(int64_t seed) : generator_(at::detail::createCPUGenerator(static_cast<uint64_t>(seed))) {}
  /// HF PEFT's _init_randlora_A_randlora_B: uniform in ±1/√columns, in bf16, as is their scaling.
  Bases dense(int64_t r, int64_t smaller, int64_t larger) {
    const Tensor A = uniform({r, 1, smaller});
    std::vector<Tensor> bases;
    for (int64_t i = 0; i < ceil_div(smaller, r); ++i) bases.push_back(uniform({larger, 1, r}));
    return scaled({A, at::cat(bases, 1)});
  }
  /// HF PEFT's _init_randlora_A_randlora_B_sparse: -1 and 1 with probability 1/(2 · sparsity) each, else 0.
  Bases sparse(int64_t r, int64_t smaller, int64_t larger, double sparsity) {
    const Tensor A = torch::rand({r, 1, smaller}, generator_);
    const Tensor B = torch::rand({larger, ceil_div(smaller, r), r}, generator_);
    const double probability = 1 / (2 * sparsity);
    const auto signs = [&](const Tensor& u) {
      return (u > 1 - probability).to(u.dtype()) - (u < probability).to(u.dtype());
    };
    return scaled({signs(A), signs(B)});
  }

 private:
  Tensor uniform(at::IntArrayRef shape) {
    const double gain = std::sqrt(2.0 / (1 + std::pow(std::sqrt(5.0), 2)));
    const double bound = std::sqrt(3.0) * (gain / std::sqrt(static_cast<double>(shape[1] * shape[2])));
    return torch::empty(shape, torch::kBFloat16).uniform_(-bound, bound, generator_);
  }
  static Bases scaled(const Bases& bases) { return {bases.A / bases.A.std(), bases.B / bases.B.std()}; }
  at::Generator generator_;
};

class RandLora final : public peft::TargetedAdapter {
 public:
  explicit RandLora(RandLoraOptions options)
      : TargetedAdapter("RANDLORA", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  peft::StateDict do_to_hf(const peft::Model& model) const override;
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites,
               const at::TensorOptions& tensor_options) override;
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<RandLoraLayer>(site, bases_, options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override;

 private:
  RandLoraOptions options_;
  std::vector<std::string> paths_;
  Bases bases_;
};

void RandLora::prepare(const peft::Model&, const std::vector<peft::Site*>& sites,
                       const at::TensorOptions& tensor_options) {
  int64_t in = 0, out = 0;
  for (const peft::Site* site : sites) {
    paths_.push_back(site->path());
    if (const auto* linear = dynamic_cast<const peft::Linear*>(site)) {
      in = std::max(in, linear->in_features());
      out = std::max(out, linear->out_features());
    }
  }
  const auto [smaller, larger] = std::minmax(in, out);
  BaseGenerator generator(options_.projection_prng_key);
  if (options_.very_sparse)
    bases_ = generator.sparse(options_.r, smaller, larger, std::sqrt(static_cast<double>(smaller)));
  else if (options_.sparse)
    bases_ = generator.sparse(options_.r, smaller, larger, 3);
  else
    bases_ = generator.dense(options_.r, smaller, larger);
  bases_ = {bases_.A.to(tensor_options.device(), tensor_options.dtype()),
            bases_.B.to(tensor_options.device(), tensor_options.dtype())};
}

/// HF PEFT repeats the bases for every layer.
peft::StateDict RandLora::do_to_hf(const peft::Model& model) const {
  peft::StateDict state = TargetedAdapter::do_to_hf(model);
  if (!options_.save_projection) return state;
  for (const auto& [name, base] : {std::pair("randlora_A", bases_.A), std::pair("randlora_B", bases_.B)}) {
    state.emplace(std::string("base_model.") + name, base);
    for (const std::string& path : paths_) state.emplace(peft::hf_key(path, name), base);
  }
  return state;
}

void RandLora::write_config(nlohmann::ordered_json& config) const {
  config["bias"] = "none";
  config["fan_in_fan_out"] = false;
  config["init_weights"] = options_.init_weights;
  config["projection_prng_key"] = options_.projection_prng_key;
  config["r"] = options_.r;
  config["randlora_alpha"] = peft::config_number(options_.randlora_alpha);
  config["randlora_dropout"] = options_.randlora_dropout;
  config["save_projection"] = options_.save_projection;
  config["sparse"] = options_.sparse;
  config["very_sparse"] = options_.very_sparse;
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<RandLora>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("randlora", make); }

}  // namespace

PEFT_PLUGIN("randlora", "1.0.0", add)
