#include "nn/pre_norm.h"

#include "nn/adapted_linear.h"

namespace peft {

namespace {

/// All of `sites` as adapted_linear(), if each is that and neither the norm before them nor the site around them has an
/// adapter.
std::optional<std::vector<AdaptedLinear>> adapted_linears(const std::vector<const Linear*>& sites, const Norm& before,
                                                          const Site& around) {
  if (before.has_adapter() || around.adapted()) return std::nullopt;
  std::vector<AdaptedLinear> all;
  for (const Linear* site : sites) {
    const auto linear = adapted_linear(*site);
    if (!linear) return std::nullopt;
    all.push_back(*linear);
  }
  return all;
}

/// What the adapters of one sublayer save.
class AdapterCost {
 public:
  explicit AdapterCost(const SiteProfiler& profile) : profile_(profile) {}

  /// Adds the adapters of one site. Returns whether its input is saved for them if the sublayer is not fused.
  bool add(const Site& site) {
    if (!site.has_adapter()) return false;
    const auto* linear = dynamic_cast<const Linear*>(&site);
    if (const auto adapted = linear == nullptr ? std::nullopt : adapted_linear(*linear)) {
      ranks_ += adapted->update ? adapted->update->A.size(0) : 0;
      return true;
    }
    fused_ = false;
    const SiteActivations activations = profile_(site);
    measured_.bytes_per_row += activations.bytes_per_row;
    measured_.fixed_bytes += activations.fixed_bytes;
    return activations.saves_input;
  }
  /// Only frozen and low-rank Linears: their inputs are recomputed, and only the products with A are saved.
  bool fused() const { return fused_; }
  int64_t ranks() const { return ranks_; }
  const SiteActivations& measured() const { return measured_; }

 private:
  const SiteProfiler& profile_;
  bool fused_ = true;
  int64_t ranks_ = 0;
  SiteActivations measured_;
};

/// Whether any of these sites saves its input. Adds all of them.
bool any_saves_input(AdapterCost& adapters, const std::vector<const Site*>& sites) {
  bool any = false;
  for (const Site* site : sites) any = adapters.add(*site) || any;
  return any;
}

}  // namespace

PreNormAttention::PreNormAttention(std::shared_ptr<RmsNorm> norm, std::shared_ptr<Attention> attention)
    : norm_(std::move(norm)), attention_(std::move(attention)) {}
PreNormAttention::~PreNormAttention() = default;

Tensor PreNormAttention::forward(const Tensor& x, const ForwardContext& context) const {
  const Attention& a = *attention_;
  if (fused())
    if (const auto qkv = adapted_linears({a.q_proj.get(), a.k_proj.get(), a.v_proj.get()}, *norm_, a)) {
      const auto y = normed_linears(x, norm_->dense(), norm_->eps(), *qkv);
      return y[0] + a.attend(y[1], y[2], y[3], context);
    }
  return x + a.forward(norm_->forward(x), context);
}

std::vector<std::shared_ptr<Site>> PreNormAttention::sites() const {
  const Attention& a = *attention_;
  return {norm_, attention_, a.q_proj, a.k_proj, a.v_proj, a.o_proj};
}

SublayerCost PreNormAttention::cost(const SiteProfiler& profile) const {
  const Attention& a = *attention_;
  const AttentionShape& shape = a.shape();
  AdapterCost adapters(profile);
  adapters.add(*norm_);
  const bool saves_normed = any_saves_input(adapters, {&a, a.q_proj.get(), a.k_proj.get(), a.v_proj.get()});
  adapters.add(*a.o_proj);  // its input, the heads, is saved in any case
  int64_t gated = 0;        // queries by group of heads; weights before and after the gate
  for (const int64_t keys : a.num_gated_keys()) gated += shape.heads * (shape.head_dim + 2 * keys);
  const int64_t heads = 2 * (shape.heads + shape.kv_heads) * shape.head_dim;  // q, k, v and the mixed heads
  SublayerCost cost;
  cost.input_per_row = shape.hidden;
  cost.saved_per_row = shape.hidden + heads + gated + adapters.ranks();
  if (!adapters.fused() && saves_normed) cost.saved_per_row += shape.hidden;
  cost.saved_per_example = a.num_prefix_keys() * heads;
  cost.adapters = adapters.measured();
  cost.backward_per_row = 2 * shape.hidden;
  cost.forward_per_row = heads;
  return cost;
}

PreNormMlp::PreNormMlp(std::shared_ptr<RmsNorm> norm, std::shared_ptr<SwigluMlp> mlp)
    : norm_(std::move(norm)), mlp_(std::move(mlp)) {}
PreNormMlp::~PreNormMlp() = default;

Tensor PreNormMlp::forward(const Tensor& x, const ForwardContext&) const {
  const SwigluMlp& m = *mlp_;
  if (fused())
    if (const auto all = adapted_linears({m.gate_proj.get(), m.up_proj.get(), m.down_proj.get()}, *norm_, m)) {
      const auto y = normed_linears(x, norm_->dense(), norm_->eps(), {(*all)[0], (*all)[1]});
      return y[0] + gated_linear(y[1], y[2], (*all)[2]);
    }
  return x + m.forward(norm_->forward(x));
}

std::vector<std::shared_ptr<Site>> PreNormMlp::sites() const {
  return {norm_, mlp_, mlp_->gate_proj, mlp_->up_proj, mlp_->down_proj};
}

SublayerCost PreNormMlp::cost(const SiteProfiler& profile) const {
  const SwigluMlp& m = *mlp_;
  const int64_t hidden = m.gate_proj->in_features(), intermediate = m.gate_proj->out_features();
  AdapterCost adapters(profile);
  adapters.add(*norm_);
  const bool saves_normed = any_saves_input(adapters, {&m, m.gate_proj.get(), m.up_proj.get()});
  const bool saves_activation = adapters.add(*m.down_proj);
  SublayerCost cost;
  cost.input_per_row = hidden;
  cost.saved_per_row = hidden + 2 * intermediate + adapters.ranks();  // with gate and up
  if (!adapters.fused() && saves_normed) cost.saved_per_row += hidden;
  if (!adapters.fused() && saves_activation) cost.saved_per_row += intermediate;
  cost.adapters = adapters.measured();
  cost.backward_per_row = 4 * intermediate + 2 * hidden;
  cost.forward_per_row = 3 * intermediate;
  return cost;
}

}  // namespace peft
