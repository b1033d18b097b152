// C³A: Circular Convolution Adaptation (Chen et al. 2024, arXiv 2407.19342): ΔW is made of circulant blocks.
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's C3AConfig.
struct C3aOptions {
  int64_t block_size = 256;
  peft::IntMap block_size_pattern;
  peft::BoolOrString init_weights = std::string("xavier_uniform");
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}, .has_exclude_modules = false};
  bool is(const char* name) const { return init_weights == peft::BoolOrString(std::string(name)); }
};

C3aOptions read(peft::Options& in) {
  C3aOptions o;
  in.get("block_size", o.block_size, "size of the circulant blocks; must divide inputs and outputs")
      .in_size_limit(o.block_size);
  peft::read_targets(in, o.targets);
  in.get("block_size_pattern", o.block_size_pattern, "block_size by module: regex of a name's suffix = size")
      .require(std::all_of(o.block_size_pattern.begin(), o.block_size_pattern.end(),
                           [](const auto& p) { return p.second > 0; }),
               "must give positive sizes");
  in.get("init_weights", o.init_weights,
         "true: zeros; \"gaussian\", \"kaiming_uniform\", \"xavier_uniform\" (also false)")
      .require(std::holds_alternative<bool>(o.init_weights) || o.is("gaussian") || o.is("kaiming_uniform") ||
                   o.is("xavier_uniform"),
               "must be true, false, \"gaussian\", \"kaiming_uniform\" or \"xavier_uniform\"");
  return o;
}

class C3aLayer final : public peft::AdapterLayer {
 public:
  C3aLayer(const peft::Linear& site, int64_t block, const C3aOptions& o, const at::TensorOptions& tensor_options) {
    const auto in = static_cast<double>(site.in_features()), out = static_cast<double>(site.out_features());
    const std::vector<int64_t> shape{site.out_features() / block, site.in_features() / block, block};
    const Tensor initial = o.init_weights == peft::BoolOrString(true) ? peft::init::zeros(shape, tensor_options)
                           : o.is("gaussian")                         ? peft::init::normal(shape, 1, tensor_options)
                           : o.is("kaiming_uniform")
                               ? peft::init::uniform(shape, std::sqrt(1 / in), tensor_options)
                               : peft::init::uniform(shape, std::sqrt(6 / (in + out)), tensor_options);
    kernel_ = register_parameter("c3a_kernel", initial);
  }
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    return next(x) + convolved(x).to(x.scalar_type());
  }
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    weights.weight += convolved(torch::eye(weights.weight.size(1), weights.weight.options())).t();
    return true;
  }

 private:
  /// Each block's circular convolution as a product of Fourier transforms, divided by the number of inputs (HF PEFT's
  /// scale).
  Tensor convolved(const Tensor& x) const {
    const auto wide = peft::accumulation_dtype(x);
    const Tensor X = at::fft_ifft(x.to(wide).unflatten(-1, {kernel_.size(1), kernel_.size(2)}));
    const Tensor Y = at::einsum("...nb,mnb->...mb", {X, at::fft_fft(kernel_.to(wide))});
    return at::real(at::fft_fft(Y)).flatten(-2) / static_cast<double>(x.size(-1));
  }
  Tensor kernel_;  // [out / block, in / block, block]
};

class C3a final : public peft::TargetedAdapter {
 public:
  explicit C3a(C3aOptions options)
      : TargetedAdapter("C3A", options.targets, options.init_weights == peft::BoolOrString(true)),
        options_(std::move(options)) {}

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override {
    blocks_ = peft::pattern_values(options_.block_size_pattern, sites, options_.block_size, "block_size_pattern");
  }
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override {
    if (site.in_features() % blocks_[index] != 0 || site.out_features() % blocks_[index] != 0)
      throw peft::ConfigError("[adapter] block_size: " + std::to_string(blocks_[index]) + " does not divide the " +
                              std::to_string(site.in_features()) + " inputs and " +
                              std::to_string(site.out_features()) + " outputs of '" + peft::printable(site.path()) +
                              "'");
    return std::make_shared<C3aLayer>(site, blocks_[index], options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["bias"] = "none";
    config["block_size"] = options_.block_size;
    config["block_size_pattern"] = nlohmann::ordered_json(options_.block_size_pattern);
    config["init_weights"] = peft::config_value(options_.init_weights);
  }

 private:
  C3aOptions options_;
  std::vector<int64_t> blocks_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<C3a>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("c3a", make); }

}  // namespace

PEFT_PLUGIN("c3a", "1.0.0", add)
