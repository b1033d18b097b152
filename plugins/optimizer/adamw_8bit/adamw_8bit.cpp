// AdamW whose moments are stored in 8 bits, block by block (Dettmers et al. 2022, arXiv 2110.02861), as bitsandbytes'
// AdamW8bit: the same dynamic map, blocks of 256, and fp32 moments for small tensors.
#include "../adam_step.h"
#include "../common_options.h"
#include "../per_parameter.h"

namespace {

using torch::Tensor;

constexpr int64_t kBlock = 256;

struct AdamW8bitOptions {
  double lr = 2e-4, weight_decay = 0;
  int64_t min_8bit_size = 4096;
  AdamOptions adam;
};

/// bitsandbytes' create_dynamic_map: 256 sorted values in [-1, 1] (unsigned: [0, 1]), densest near 0.
Tensor dynamic_map(bool has_sign) {
  std::vector<Tensor> parts = {torch::tensor({0.0F, 1.0F})};
  for (int64_t i = 0; i < 7; ++i) {
    const int64_t items = (int64_t{1} << (has_sign ? i : i + 1)) + 1;
    const Tensor bounds = at::linspace(0.1, 1, items, torch::kFloat);
    const Tensor means = (bounds.slice(0, 0, -1) + bounds.slice(0, 1)) / 2.0 * std::pow(10.0, i - 6);
    parts.push_back(means);
    if (has_sign) parts.push_back(-means);
  }
  return std::get<0>(at::cat(parts).sort());
}

/// The map and the midpoints between its neighbors.
class Map {
 public:
  explicit Map(bool has_sign) : values_(dynamic_map(has_sign)) {
    // Rounded down to fp32, so that every fp32 number stays on its side of the midpoint.
    const Tensor wide = values_.to(torch::kDouble), exact = (wide.slice(0, 0, -1) + wide.slice(0, 1)) / 2,
                 near = exact.to(torch::kFloat);
    middles_ = at::where(near.to(torch::kDouble) > exact, near.nextafter(at::full_like(near, -2)), near);
  }
  /// codes in blocks of 256, each with its largest magnitude → values [codes' shape] of `dtype`.
  Tensor read(const Tensor& codes, const Tensor& absmax, torch::Dtype dtype) const {
    const Tensor values = values_.to(codes.device()).index_select(0, codes.flatten().to(torch::kInt));
    return (blocks(values) * absmax.unsqueeze(1)).flatten().narrow(0, 0, codes.numel()).view(codes.sizes()).to(dtype);
  }
  void write(const Tensor& values, Tensor codes, Tensor absmax) const {
    const Tensor rows = blocks(values.flatten().to(torch::kFloat));
    absmax.copy_(rows.abs().amax(1));
    // A block of zeros must not become 0/0.
    const Tensor shares = rows * absmax.clamp_min(std::numeric_limits<float>::min()).reciprocal().unsqueeze(1);
    const Tensor nearest = at::bucketize(shares, middles_.to(codes.device()), /*out_int32=*/true);
    codes.copy_(nearest.flatten().narrow(0, 0, codes.numel()).view(codes.sizes()));
  }

 private:
  static Tensor blocks(const Tensor& flat) {
    const int64_t beyond = (kBlock - flat.numel() % kBlock) % kBlock;
    return (beyond > 0 ? at::constant_pad_nd(flat, {0, beyond}) : flat).view({-1, kBlock});
  }
  Tensor values_, middles_;
};

class AdamW8bit final : public PerParameter {
 public:
  explicit AdamW8bit(AdamW8bitOptions options) : PerParameter("adamw_8bit"), options_(options) {}

 protected:
  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }
  peft::StateDict make_state(const Tensor& parameter) const override {
    if (parameter.numel() < options_.min_8bit_size)
      return {{"exp_avg", at::zeros_like(parameter)}, {"exp_avg_sq", at::zeros_like(parameter)}};
    const auto codes = [&] { return at::zeros(parameter.sizes(), parameter.options().dtype(torch::kByte)); };
    const auto largest = [&] {
      return at::zeros({(parameter.numel() + kBlock - 1) / kBlock}, parameter.options().dtype(torch::kFloat));
    };
    return {
        {"exp_avg", codes()}, {"exp_avg_absmax", largest()}, {"exp_avg_sq", codes()}, {"exp_avg_sq_absmax", largest()}};
  }
  void update(Tensor parameter, const Tensor& gradient, ParamState& state, const peft::ParamGroup& group) override {
    Tensor &exp_avg = state["exp_avg"], &exp_avg_sq = state["exp_avg_sq"];
    const auto step = [&](const Tensor& mean, const Tensor& squares) {
      adamw_step(parameter, gradient, mean, squares, state.step, options_.adam, group.lr, *group.weight_decay);
    };
    if (exp_avg.scalar_type() != torch::kByte) return step(exp_avg, exp_avg_sq);
    Tensor &largest = state["exp_avg_absmax"], &largest_sq = state["exp_avg_sq_absmax"];
    const torch::Dtype dtype = parameter.scalar_type();
    const Tensor mean = signed_.read(exp_avg, largest, dtype), squares = unsigned_.read(exp_avg_sq, largest_sq, dtype);
    step(mean, squares);
    signed_.write(mean, exp_avg, largest);
    unsigned_.write(squares, exp_avg_sq, largest_sq);
  }

 private:
  AdamW8bitOptions options_;
  Map signed_{true}, unsigned_{false};
};

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  AdamW8bitOptions o;
  read_lr(in, o.lr);
  read_adam(in, o.adam.beta1, o.adam.beta2, o.adam.eps);
  read_weight_decay(in, o.weight_decay);
  in.get("min_8bit_size", o.min_8bit_size, "tensors with fewer elements have fp32 moments")
      .require(o.min_8bit_size >= 0, "must be 0 or more");
  return std::make_unique<AdamW8bit>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("adamw_8bit", make); }

}  // namespace

PEFT_PLUGIN("adamw_8bit", "1.0.0", add)
