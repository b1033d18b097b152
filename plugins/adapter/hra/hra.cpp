// HRA: Householder Reflection Adaptation (Yuan et al. 2024, arXiv 2405.17484): W becomes W·Π(I − 2·u·uᵀ), each u of
// length 1.
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's HRAConfig.
struct HraOptions {
  int64_t r = 8;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

HraOptions read(peft::Options& in) {
  HraOptions o;
  in.get("r", o.r, "number of reflections; if even, they start in pairs that cancel").in_size_limit(o.r);
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: in equal pairs; false: all random, for tests");
  return o;
}

class HraLayer final : public peft::AdapterLayer {
 public:
  HraLayer(const peft::Linear& site, int64_t r, bool in_pairs, const at::TensorOptions& tensor_options) {
    const int64_t in = site.in_features();
    u_ = register_parameter("hra_u",
                            in_pairs ? peft::init::kaiming_uniform({in, r / 2}, tensor_options).repeat_interleave(2, 1)
                                     : peft::init::kaiming_uniform({in, r}, tensor_options));
  }
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const auto [U, T] = reflections();
    const auto dtype = x.scalar_type();
    const Tensor shift = at::matmul(at::matmul(at::matmul(x, U.to(dtype)), T.t().to(dtype)), U.t().to(dtype));
    return next(x - shift);
  }
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    const auto dtype = weights.weight.scalar_type();
    const auto [U, T] = reflections();
    weights.weight -= at::mm(at::mm(at::mm(weights.weight, U.to(dtype)), T.to(dtype)), U.t().to(dtype));
    return true;
  }

 private:
  /// The product of all reflections as I − U·T·Uᵀ (Schreiber & Van Loan 1989): T⁻¹ is ½ on the diagonal and UᵀU above.
  std::pair<Tensor, Tensor> reflections() const {
    const Tensor U = u_ / u_.norm(2, 0);
    const Tensor inverse = at::triu(at::mm(U.t(), U), 1) + 0.5 * torch::eye(U.size(1), U.options());
    return {U, at::linalg_solve_triangular(inverse, torch::eye(U.size(1), U.options()), /*upper=*/true)};
  }
  Tensor u_;  // [in, r]
};

bool starts_in_pairs(const HraOptions& o) { return o.init_weights && o.r % 2 == 0; }

class Hra final : public peft::TargetedAdapter {
 public:
  explicit Hra(HraOptions options)
      : TargetedAdapter("HRA", options.targets, starts_in_pairs(options)), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<HraLayer>(site, options_.r, starts_in_pairs(options_), tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["apply_GS"] = false;
    config["bias"] = "none";
    config["init_weights"] = options_.init_weights;
    config["r"] = options_.r;
  }

 private:
  HraOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Hra>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("hra", make); }

}  // namespace

PEFT_PLUGIN("hra", "1.0.0", add)
