// GaLore: AdamW in a low-rank space that follows the gradient (Zhao et al. 2024, arXiv 2403.03507).
#include "../adam_step.h"
#include "../common_options.h"
#include "../per_parameter.h"

namespace {

using torch::Tensor;

struct GaloreOptions {
  double lr = 2e-4, weight_decay = 0, scale = 0.25;
  int64_t rank = 128, update_proj_gap = 200;
  AdamOptions adam{.eps = 1e-6};
};

class Galore final : public PerParameter {
 public:
  explicit Galore(GaloreOptions options) : PerParameter("galore"), options_(options) {}

 protected:
  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }
  peft::StateDict make_state(const Tensor& parameter) const override;
  void update(Tensor parameter, const Tensor& gradient, ParamState& state, const peft::ParamGroup& group) override;

 private:
  /// Only if the space is smaller than the matrix.
  bool projects(const Tensor& parameter) const {
    return parameter.dim() == 2 && std::min(parameter.size(0), parameter.size(1)) > options_.rank;
  }
  Tensor projector(const Tensor& gradient) const;
  GaloreOptions options_;
};

bool tall(const Tensor& matrix) { return matrix.size(0) >= matrix.size(1); }

peft::StateDict Galore::make_state(const Tensor& parameter) const {
  if (!projects(parameter)) return {{"exp_avg", at::zeros_like(parameter)}, {"exp_avg_sq", at::zeros_like(parameter)}};
  const int64_t rows = parameter.size(0), cols = parameter.size(1), rank = options_.rank;
  const auto zeros = [&](int64_t m, int64_t n) { return at::zeros({m, n}, parameter.options()); };
  if (tall(parameter))
    return {{"exp_avg", zeros(rows, rank)}, {"exp_avg_sq", zeros(rows, rank)}, {"projector", zeros(rank, cols)}};
  return {{"exp_avg", zeros(rank, cols)}, {"exp_avg_sq", zeros(rank, cols)}, {"projector", zeros(rows, rank)}};
}

/// The gradient's first singular vectors, of its smaller side: [rank, cols] if it is tall, else [rows, rank].
Tensor Galore::projector(const Tensor& gradient) const {
  const auto wide = c10::promoteTypes(torch::kFloat32, gradient.scalar_type());  // LAPACK has no half types
  const auto [u, s, vh] = at::linalg_svd(gradient.to(wide), /*full_matrices=*/false);
  return tall(gradient) ? vh.narrow(0, 0, options_.rank) : u.narrow(1, 0, options_.rank);
}

void Galore::update(Tensor parameter, const Tensor& gradient, ParamState& state, const peft::ParamGroup& group) {
  const bool low = projects(parameter);
  Tensor g = gradient;
  if (low) {
    Tensor& space = state["projector"];
    if ((state.step - 1) % options_.update_proj_gap == 0) space.copy_(projector(gradient));
    g = tall(gradient) ? gradient.mm(space.t()) : space.t().mm(gradient);
  }
  const AdamOptions& adam = options_.adam;
  Tensor &exp_avg = state["exp_avg"], &exp_avg_sq = state["exp_avg_sq"];
  exp_avg.mul_(adam.beta1).add_(g, 1 - adam.beta1);
  exp_avg_sq.mul_(adam.beta2).addcmul_(g, g, 1 - adam.beta2);
  Tensor direction = exp_avg / exp_avg_sq.sqrt().add_(adam.eps);
  if (low)
    direction = (tall(gradient) ? direction.mm(state["projector"]) : state["projector"].mm(direction)) * options_.scale;
  const double corrections = std::sqrt(1 - std::pow(adam.beta2, state.step)) / (1 - std::pow(adam.beta1, state.step));
  parameter.add_(direction, -group.lr * corrections);
  if (*group.weight_decay != 0) parameter.mul_(1 - group.lr * *group.weight_decay);
}

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  GaloreOptions o;
  read_lr(in, o.lr);
  in.get("rank", o.rank, "rank of the space that a matrix's gradient is projected into")
      .require(o.rank > 0, "must be positive");
  in.get("update_proj_gap", o.update_proj_gap, "steps between updates of the projection")
      .require(o.update_proj_gap > 0, "must be positive");
  read_positive(in, "scale", o.scale, "factor of the update of a projected matrix");
  read_adam(in, o.adam.beta1, o.adam.beta2, o.adam.eps);
  read_weight_decay(in, o.weight_decay);
  return std::make_unique<Galore>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("galore", make); }

}  // namespace

PEFT_PLUGIN("galore", "1.0.0", add)
