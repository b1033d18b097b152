// OFT: Orthogonal Finetuning (Qiu et al. 2023, arXiv 2306.07280), applied to the input (Qiu et al. 2025, OFTv2, arXiv
// 2506.19847): y = W·(R·x) with a block-diagonal R that is a rotation.
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's OFTConfig.
struct OftOptions {
  int64_t r = 0, oft_block_size = 32;
  bool block_share = false;
  bool use_cayley_neumann = true;
  int64_t num_cayley_neumann_terms = 5;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

OftOptions read(peft::Options& in) {
  OftOptions o;
  in.get("r", o.r, "number of blocks; 0: given by oft_block_size").require(o.r >= 0, "must not be negative");
  in.get("oft_block_size", o.oft_block_size, "size of the blocks; 0: given by r")
      .require(o.oft_block_size == 0 || o.oft_block_size > 1,
               "must be 0 or at least 2: a block of one has no rotation");
  if (o.r == 0 && o.oft_block_size == 0) in.error("r", "and oft_block_size are both 0; set one of them");
  if (o.r != 0 && o.oft_block_size != 0)
    in.error("r",
             "and oft_block_size exclude each other; add oft_block_size = 0 to choose the number of blocks, or r = 0 "
             "to choose their size");
  double dropout = 0;
  in.get("module_dropout", dropout, "must be 0: HF PEFT's linear layers do not use it")
      .require(dropout == 0, "is not supported: must be 0");
  peft::read_targets(in, o.targets);
  in.get("block_share", o.block_share, "one rotation for all blocks of a layer");
  in.get("use_cayley_neumann", o.use_cayley_neumann,
         "approximate the inverse in the Cayley transform by a Neumann series");
  in.get("num_cayley_neumann_terms", o.num_cayley_neumann_terms, "terms of that series")
      .in_size_limit(o.num_cayley_neumann_terms, 1000)
      .require(o.num_cayley_neumann_terms != 1, "must not be 1: the first term alone rotates nothing");
  in.get("init_weights", o.init_weights, "true: no rotation; false: random rotations, for tests");
  return o;
}

/// The divisor of `in` nearest to `target`, the smaller of two, as in HF PEFT's adjust_oft_parameters.
int64_t nearest_divisor(int64_t in, int64_t target) {
  if (target >= in) return in;
  int64_t above = target, below = target;
  while (in % above != 0) ++above;
  while (in % below != 0) --below;
  return target - below <= above - target ? below : above;
}

class OftLayer final : public peft::AdapterLayer {
 public:
  OftLayer(const peft::Linear& site, const OftOptions& o, const at::TensorOptions& tensor_options)
      : terms_(o.use_cayley_neumann ? o.num_cayley_neumann_terms : 0) {
    const int64_t in = site.in_features();
    block_ = o.r == 0 ? nearest_divisor(in, o.oft_block_size) : in / nearest_divisor(in, o.r);
    if (block_ < 2)
      throw peft::ConfigError("[adapter] r: the " + std::to_string(in) + " features of '" + site.path() +
                              "' would form blocks of one, which have no rotation; choose fewer blocks");
    const std::vector<int64_t> shape{o.block_share ? 1 : in / block_, block_ * (block_ - 1) / 2};
    auto holder = register_module("oft_R", std::make_shared<torch::nn::Module>());
    upper_ = holder->register_parameter("weight", o.init_weights ? peft::init::zeros(shape, tensor_options)
                                                                 : peft::init::normal(shape, 0.1, tensor_options));
    const Tensor above = at::triu_indices(block_, block_, 1);
    positions_ = (above[0] * block_ + above[1]).to(tensor_options.device());
  }
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const Tensor X = x.unflatten(-1, {-1, block_});
    return next(at::einsum("...nk,nkc->...nc", {X, rotations(x.size(-1)).to(x.scalar_type())}).flatten(-2));
  }
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    const Tensor W = weights.weight.unflatten(1, {-1, block_});
    weights.weight = at::einsum("onc,nkc->onk", {W, rotations(weights.weight.size(1)).to(W.scalar_type())}).flatten(1);
    return true;
  }

 private:
  /// R of each block [in / block, block, block]: Cayley's (I + Q)⁻¹(I − Q) of a skew Q, or the series
  /// I + 2Q + 2Q² + … + Qⁿ⁻¹ that HF PEFT uses instead, whose last term has the factor 1.
  Tensor rotations(int64_t in) const {
    const int64_t n = upper_.size(0);
    const Tensor flat = torch::zeros({n, block_ * block_}, upper_.options()).index_copy(1, positions_, upper_);
    const Tensor half = flat.view({n, block_, block_}), Q = half - half.transpose(1, 2);
    const Tensor I = torch::eye(block_, Q.options()).expand({n, block_, block_});
    const Tensor R = terms_ == 0 ? at::linalg_solve(I + Q, I - Q, /*left=*/false) : series(Q, I);
    return n == 1 ? R.expand({in / block_, block_, block_}) : R;
  }
  Tensor series(const Tensor& Q, const Tensor& I) const {
    if (terms_ == 1) return I;
    Tensor R = I + 2 * Q;
    if (terms_ == 2) return R;
    Tensor power = at::bmm(Q, Q);
    R = R + 2 * power;
    for (int64_t term = 3; term < terms_ - 1; ++term) {
      power = at::bmm(power, Q);
      R = R + 2 * power;
    }
    return R + at::bmm(power, Q);
  }
  int64_t terms_, block_ = 0;  // 0 terms: the exact transform
  Tensor upper_, positions_;   // [blocks or 1, block·(block − 1)/2]; offsets of the entries in a block
};

class Oft final : public peft::TargetedAdapter {
 public:
  explicit Oft(OftOptions options)
      : TargetedAdapter("OFT", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<OftLayer>(site, options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["bias"] = "none";
    config["block_share"] = options_.block_share;
    config["coft"] = false;
    config["eps"] = 6e-5;
    config["fan_in_fan_out"] = false;
    config["init_weights"] = options_.init_weights;
    config["module_dropout"] = 0.0;
    config["num_cayley_neumann_terms"] = options_.num_cayley_neumann_terms;
    config["oft_block_size"] = options_.oft_block_size;
    config["r"] = options_.r;
    config["use_cayley_neumann"] = options_.use_cayley_neumann;
  }

 private:
  OftOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Oft>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("oft", make); }

}  // namespace

PEFT_PLUGIN("oft", "1.0.0", add)
