// BOFT: Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization (Liu et al. 2023, arXiv 2311.06243): the
// input is rotated by a product of block-diagonal rotations, each in a different order of the features.
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>
#include <torch/nn/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's BOFTConfig.
struct BoftOptions {
  int64_t boft_block_size = 4;
  int64_t boft_block_num = 0;
  int64_t boft_n_butterfly_factor = 1;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

BoftOptions read(peft::Options& in) {
  BoftOptions o;
  in.get("boft_block_size", o.boft_block_size, "features per block; 0: given by boft_block_num")
      .require(o.boft_block_size >= 0, "must not be negative");
  in.get("boft_block_num", o.boft_block_num, "blocks per factor; 0: given by boft_block_size")
      .require(o.boft_block_num >= 0, "must not be negative")
      .require(o.boft_block_num == 0 || o.boft_block_size == 0,
               "and boft_block_size exclude each other; add boft_block_size = 0 to choose the number of blocks, or "
               "boft_block_num = 0 to choose their size")
      .require(o.boft_block_num != 0 || o.boft_block_size != 0, "and boft_block_size are both 0; set one of them");
  in.get("boft_n_butterfly_factor", o.boft_n_butterfly_factor,
         "number of rotations, each mixing twice as many features as the one before")
      .require(o.boft_n_butterfly_factor > 0 && o.boft_n_butterfly_factor < 32, "must be between 1 and 31");
  double dropout = 0;
  in.get("boft_dropout", dropout, "not supported, must be 0").require(dropout == 0, "is not supported here: must be 0");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: no rotation; false: small random rotations, for tests");
  return o;
}

/// HF PEFT's block_butterfly_perm: within each group of `size` · 2^`factor` features, first the half blocks at even
/// positions, then those at odd ones.
Tensor butterfly(int64_t features, int64_t size, int64_t factor) {
  const Tensor order = torch::arange(features, torch::kLong);
  if (factor == 0) return order;
  const Tensor halves = order.view({-1, int64_t{1} << factor, 2, size / 2});  // groups, pairs, even or odd, half block
  return halves.transpose(1, 2).reshape({features});
}

class BoftLayer final : public peft::AdapterLayer {
 public:
  BoftLayer(const peft::Linear& site, int64_t block, const BoftOptions& o, const at::TensorOptions& tensor_options)
      : site_(site) {
    const int64_t in = site.in_features(), factors = o.boft_n_butterfly_factor;
    const std::vector<int64_t> shape{factors, in / block, block, block}, outputs{site.out_features(), 1};
    R_ = register_parameter("boft_R", o.init_weights ? peft::init::zeros(shape, tensor_options)
                                                     : peft::init::normal(shape, 0.1, tensor_options));
    s_ = register_parameter("boft_s", o.init_weights ? torch::ones(outputs, tensor_options)
                                                     : 1 + peft::init::normal(outputs, 0.1, tensor_options));
    for (int64_t factor = 0; factor < factors; ++factor) {
      order_.push_back(butterfly(in, block, factor).to(tensor_options.device()));
      inverse_order_.push_back(order_.back().argsort());
    }
  }
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const Tensor y = next(rotated(x)), s = s_.flatten().to(y.scalar_type());
    const auto copy = site_.copies().find("bias");
    const Tensor bias = copy == site_.copies().end() ? site_.base_bias() : copy->second;
    return bias.defined() ? y * s + bias.to(y.scalar_type()) * (1 - s) : y * s;
  }
  /// (x·T)·Wᵀ = x·(W·Tᵀ)ᵀ, with T the rotation of each feature.
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    const Tensor T = rotated(torch::eye(weights.weight.size(1), weights.weight.options()));
    weights.weight = at::mm(weights.weight, T.t()) * s_.to(weights.weight.scalar_type());
    return true;
  }

 private:
  /// Applies the last factor first, as HF PEFT does.
  Tensor rotated(Tensor x) const {
    const Tensor R = rotations().to(x.scalar_type());
    for (std::size_t factor = order_.size(); factor-- > 0;) {
      const Tensor blocks = x.index_select(-1, inverse_order_[factor]).unflatten(-1, {R.size(1), R.size(2)});
      const Tensor rotated = at::einsum("...nk,nkc->...nc", {blocks, R[static_cast<int64_t>(factor)]});
      x = rotated.flatten(-2).index_select(-1, order_[factor]);
    }
    return x;
  }
  /// Cayley's transform of the skew part Q of each block: (I + Q)⁻¹(I − Q), [factors, blocks, size, size].
  Tensor rotations() const {
    const Tensor Q = (R_ - R_.transpose(2, 3)) / 2, I = torch::eye(R_.size(3), R_.options());
    return at::linalg_solve(I + Q, I - Q, /*left=*/false);
  }
  const peft::Linear& site_;
  Tensor R_, s_;                               // [factors, blocks, size, size], [out, 1]
  std::vector<Tensor> order_, inverse_order_;  // per factor: permutation of its result and the inverse, [in]
};

class Boft final : public peft::TargetedAdapter {
 public:
  explicit Boft(BoftOptions options)
      : TargetedAdapter("BOFT", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<BoftLayer>(site, block_of(site), options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["bias"] = "none";
    config["boft_block_num"] = options_.boft_block_num;
    config["boft_block_size"] = options_.boft_block_size;
    config["boft_dropout"] = 0.0;
    config["boft_n_butterfly_factor"] = options_.boft_n_butterfly_factor;
    config["fan_in_fan_out"] = false;
    config["init_weights"] = options_.init_weights;
  }

 private:
  int64_t block_of(const peft::Linear& site) const;
  BoftOptions options_;
};

/// The number of features per block. Throws ConfigError if blocks, or the groups that the factors mix, do not divide
/// the inputs.
int64_t Boft::block_of(const peft::Linear& site) const {
  const int64_t in = site.in_features(), factors = options_.boft_n_butterfly_factor;
  const std::string where = " the " + std::to_string(in) + " inputs of '" + peft::printable(site.path()) + "'";
  const bool by_size = options_.boft_block_size > 0;
  const int64_t given = by_size ? options_.boft_block_size : options_.boft_block_num;
  if (in % given != 0)
    throw peft::ConfigError(std::string("[adapter] ") + (by_size ? "boft_block_size: " : "boft_block_num: ") +
                            std::to_string(given) + " does not divide" + where);
  const int64_t block = by_size ? given : in / given;
  if (factors > 1 && (block % 2 != 0 || in / block % (int64_t{1} << (factors - 1)) != 0))
    throw peft::ConfigError("[adapter] boft_n_butterfly_factor: " + std::to_string(factors) +
                            " needs blocks of even size, in a multiple of 2^" + std::to_string(factors - 1) + "; " +
                            std::to_string(in / block) + " blocks of " + std::to_string(block) + " do not fit" + where);
  return block;
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Boft>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("boft", make); }

}  // namespace

PEFT_PLUGIN("boft", "1.0.0", add)
