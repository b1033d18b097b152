// LoKr: low-rank Kronecker product (Edalati et al. 2022, KronA, arXiv 2212.10650; Yeh et al. 2023, LyCORIS, arXiv
// 2309.14859): ΔW = alpha/r · w1 ⊗ w2, where either may be a product of rank r itself.
#include <peft/init.h>
#include <peft/plugin.h>
#include <peft/targeted_adapter.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// HF PEFT's LoKrConfig: its names, its defaults.
struct LokrOptions {
  int64_t r = 8;
  double alpha = 8;
  bool decompose_both = false;
  int64_t decompose_factor = -1;
  bool init_weights = true;
  peft::IntMap rank_pattern;
  peft::NumberMap alpha_pattern;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

LokrOptions read(peft::Options& in) {
  LokrOptions o;
  in.get("r", o.r, "rank of a factor that is a product itself").require(o.r > 0, "must be positive");
  in.get("alpha", o.alpha, "the update is scaled by alpha / r");
  for (const char* dropout : {"rank_dropout", "module_dropout"}) {
    double probability = 0;
    in.get(dropout, probability, "0: not supported").require(probability == 0, "is not supported here: must be 0");
  }
  in.get("decompose_both", o.decompose_both, "let w1 be a product of rank r too, where that is smaller");
  in.get("decompose_factor", o.decompose_factor, "rows and columns of w1; -1: near the square root of the layer's")
      .require(o.decompose_factor == -1 || o.decompose_factor > 0, "must be positive, or -1");
  peft::read_targets(in, o.targets);
  in.get("rank_pattern", o.rank_pattern, "other ranks: regex of a module name's end = rank")
      .require(std::all_of(o.rank_pattern.begin(), o.rank_pattern.end(), [](const auto& p) { return p.second > 0; }),
               "must give positive ranks");
  in.get("alpha_pattern", o.alpha_pattern, "other alphas: regex of a module name's end = alpha");
  in.get("init_weights", o.init_weights, "true: w1 (or w1_a) zero, the others uniform; false: all random, for tests");
  return o;
}

/// `dimension` as m · n with m ≤ n and m ≤ factor: m = factor if that divides, else as near to n as PEFT's (LyCORIS's)
/// search comes.
std::pair<int64_t, int64_t> factorization(int64_t dimension, int64_t factor) {
  if (factor > 0 && dimension % factor == 0) return {factor, dimension / factor};
  if (factor == -1) factor = dimension;
  int64_t m = 1, n = dimension;
  const int64_t most = m + n;
  while (m < n) {
    int64_t next = m + 1;
    while (dimension % next != 0) ++next;
    if (next + dimension / next > most || next > factor) break;
    m = next, n = dimension / next;
  }
  return {std::min(m, n), std::max(m, n)};
}

class LokrLayer final : public peft::Layer {
 public:
  LokrLayer(const peft::Linear& site, int64_t r, double scale, const LokrOptions& o, const at::TensorOptions& form)
      : scale_(scale) {
    const auto [out1, out2] = factorization(site.out_features(), o.decompose_factor);
    const auto [in1, in2] = factorization(site.in_features(), o.decompose_factor);
    const auto drawn = [&](at::IntArrayRef shape) { return peft::init::kaiming_uniform(shape, form); };
    const auto first = [&](at::IntArrayRef shape) {
      return o.init_weights ? peft::init::zeros(shape, form) : drawn(shape);
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

  /// (w1 ⊗ w2)·x = w1·X·w2ᵀ for x read as a matrix X: the product of the two is never made.
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const auto dtype = x.scalar_type();
    const Tensor w1 = whole(w1_, w1_b_).to(dtype), w2 = whole(w2_, w2_b_).to(dtype);
    const Tensor X = x.unflatten(-1, {w1.size(1), w2.size(1)});
    return next(x).add(at::matmul(w1, at::linear(X, w2)).flatten(-2), scale_);
  }
  bool fold(peft::Affine& affine) const override {
    const torch::NoGradGuard no_grad;
    const auto dtype = affine.weight.scalar_type();
    affine.weight.add_(at::kron(whole(w1_, w1_b_).to(dtype), whole(w2_, w2_b_).to(dtype)), scale_);
    return true;
  }

 private:
  static Tensor whole(const Tensor& a, const Tensor& b) { return b.defined() ? at::mm(a, b) : a; }
  double scale_;
  Tensor w1_, w1_b_, w2_, w2_b_;
};

class Lokr final : public peft::TargetedAdapter {
 public:
  explicit Lokr(LokrOptions options) : TargetedAdapter("LOKR", options.targets), options_(std::move(options)) {}
  bool starts_as_base() const override { return options_.init_weights; }

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override {
    ranks_ = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
    alphas_ = peft::pattern_values(options_.alpha_pattern, sites, options_.alpha, "alpha_pattern");
  }
  std::shared_ptr<peft::Layer> make_layer(const peft::Linear& site, std::size_t index,
                                          const at::TensorOptions& form) override {
    const double scale = alphas_[index] / static_cast<double>(ranks_[index]);
    return std::make_shared<LokrLayer>(site, ranks_[index], scale, options_, form);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["alpha"] = peft::config_number(options_.alpha);
    config["alpha_pattern"] = nlohmann::ordered_json::object();
    for (const auto& [key, alpha] : options_.alpha_pattern) config["alpha_pattern"][key] = peft::config_number(alpha);
    config["decompose_both"] = options_.decompose_both;
    config["decompose_factor"] = options_.decompose_factor;
    config["init_weights"] = options_.init_weights;
    config["module_dropout"] = 0.0;
    config["r"] = options_.r;
    config["rank_dropout"] = 0.0;
    config["rank_dropout_scale"] = false;
    config["rank_pattern"] = nlohmann::ordered_json(options_.rank_pattern);
    config["use_effective_conv2d"] = false;
  }

 private:
  LokrOptions options_;
  std::vector<int64_t> ranks_;
  std::vector<double> alphas_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Lokr>(read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("lokr", make); }

}  // namespace

PEFT_PLUGIN("lokr", "1.0.0", add)
