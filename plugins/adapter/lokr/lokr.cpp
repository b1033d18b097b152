// LoKr: low-rank Kronecker product (Edalati et al. 2022, KronA, arXiv 2212.10650; Yeh et al. 2023, LyCORIS, arXiv
// 2309.14859): ΔW = alpha/r · w1 ⊗ w2, where either factor may itself be a product of rank r.
#include <peft/adapters/init.h>
#include <peft/plugin.h>

#include <algorithm>

#include "../rank_and_alpha.h"

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's LoKrConfig.
struct LokrOptions : RankAndAlpha {
  bool decompose_both = false;
  int64_t decompose_factor = -1;
};

LokrOptions read(peft::Options& in) {
  LokrOptions o;
  read_rank_and_alpha(in, o);
  in.get("decompose_both", o.decompose_both, "make w1 a product of rank r too, if that is smaller");
  in.get("decompose_factor", o.decompose_factor,
         "rows and columns of w1; -1: near the square root of those of the layer")
      .require(o.decompose_factor == -1 || o.decompose_factor > 0, "must be positive, or -1");
  in.get("init_weights", o.init_weights, "true: w1 (or w1_a) zero, the others uniform; false: all random, for tests");
  return o;
}

/// Splits `dimension` into m · n with m ≤ n and m ≤ factor: m is the factor if it divides the dimension, else the
/// result of HF PEFT's (LyCORIS's) search for m close to n.
std::pair<int64_t, int64_t> factorization(int64_t dimension, int64_t factor) {
  if (factor > 0 && dimension % factor == 0) return {factor, dimension / factor};
  if (factor == -1) factor = dimension;
  int64_t m = 1, n = dimension;
  const int64_t max_sum = m + n;
  while (m < n) {
    int64_t next = m + 1;
    while (dimension % next != 0) ++next;
    if (next + dimension / next > max_sum || next > factor) break;
    m = next;
    n = dimension / next;
  }
  return {std::min(m, n), std::max(m, n)};
}

class LokrLayer final : public peft::AdapterLayer {
 public:
  LokrLayer(const peft::Linear& site, int64_t r, double scale, const LokrOptions& o,
            const at::TensorOptions& tensor_options)
      : scale_(scale) {
    const auto [out1, out2] = factorization(site.out_features(), o.decompose_factor);
    const auto [in1, in2] = factorization(site.in_features(), o.decompose_factor);
    const auto drawn = [&](at::IntArrayRef shape) { return peft::init::kaiming_uniform(shape, tensor_options); };
    const auto first = [&](at::IntArrayRef shape) {
      return o.init_weights ? peft::init::zeros(shape, tensor_options) : drawn(shape);
    };
    if (o.decompose_both && 2 * r < std::max(out1, in1)) {
      w1_ = register_parameter("lokr_w1_a", first({out1, r}));
      w1_b_ = register_parameter("lokr_w1_b", drawn({r, in1}));
    } else {
      w1_ = register_parameter("lokr_w1", first({out1, in1}));
    }
    if (2 * r < std::max(out2, in2)) {
      w2_ = register_parameter("lokr_w2_a", drawn({out2, r}));
      w2_b_ = register_parameter("lokr_w2_b", drawn({r, in2}));
    } else {
      w2_ = register_parameter("lokr_w2", drawn({out2, in2}));
    }
  }

  /// (w1 ⊗ w2)·x = w1·X·w2ᵀ with x viewed as a matrix X, without computing the Kronecker product.
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const auto dtype = x.scalar_type();
    const Tensor w1 = product(w1_, w1_b_).to(dtype), w2 = product(w2_, w2_b_).to(dtype);
    const Tensor X = x.unflatten(-1, {w1.size(1), w2.size(1)});
    return next(x).add(at::matmul(w1, at::linear(X, w2)).flatten(-2), scale_);
  }
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    const auto dtype = weights.weight.scalar_type();
    weights.weight.add_(at::kron(product(w1_, w1_b_).to(dtype), product(w2_, w2_b_).to(dtype)), scale_);
    return true;
  }

 private:
  static Tensor product(const Tensor& a, const Tensor& b) { return b.defined() ? at::mm(a, b) : a; }
  double scale_;
  Tensor w1_, w1_b_, w2_, w2_b_;
};

class Lokr final : public RankedAdapter {
 public:
  explicit Lokr(LokrOptions options) : RankedAdapter("LOKR", options), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<LokrLayer>(site, rank(index), scale(index), options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    RankedAdapter::write_config(config);
    config["decompose_both"] = options_.decompose_both;
    config["decompose_factor"] = options_.decompose_factor;
    config["rank_dropout_scale"] = false;
  }

 private:
  LokrOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Lokr>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("lokr", make); }

}  // namespace

PEFT_PLUGIN("lokr", "1.0.0", add)
