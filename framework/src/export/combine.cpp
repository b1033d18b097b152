#include "export/combine.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nn/adapted_linear.h"
#include "peft/base/error.h"

namespace peft {

namespace {

/// An adapter's update of a site, and its weight.
struct WeightedUpdate {
  LowRank update;
  double weight;
};

void check(const CombineOptions& options) {
  const Combination& how = options.combination;
  const auto& methods = combination_methods();
  const StringList& adapters = options.from.adapters;
  if (adapters.empty()) throw ConfigError("no adapter to export");
  if (std::find(methods.begin(), methods.end(), how.method) == methods.end())
    throw ConfigError(
        "unknown combination '" + printable(how.method) + "'; use " +
        std::accumulate(methods.begin() + 1, methods.end(), methods.front(),
                        [](const std::string& list, const std::string& method) { return list + ", " + method; }));
  if (!how.weights.empty() && how.weights.size() != adapters.size())
    throw ConfigError(std::to_string(how.weights.size()) + " weights for " + std::to_string(adapters.size()) +
                      " adapters; give one weight per adapter, or none");
  for (const double weight : how.weights)
    if (!std::isfinite(static_cast<float>(weight))) throw ConfigError("a weight must be a finite number");
  if (!(how.density > 0 && how.density <= 1)) throw ConfigError("the density must be above 0 and at most 1");
  if (how.rank < 0) throw ConfigError("the rank must be positive");
  if (how.majority_sign != "total" && how.majority_sign != "frequency")
    throw ConfigError("the majority sign must be \"total\" or \"frequency\"");
}

/// HF PEFT's prune() for one tensor.
Tensor pruned(const Tensor& tensor, const std::string& method, double density) {
  if (density >= 1 || method == "linear") return tensor;
  if (method.starts_with("dare")) return tensor * torch::bernoulli(torch::full_like(tensor, density)) / density;
  const Tensor flat = tensor.reshape(-1);
  const auto retained = static_cast<int64_t>(density * static_cast<double>(flat.numel()));
  const Tensor mask = torch::zeros_like(flat);
  mask.index_fill_(0, std::get<1>(flat.abs().topk(retained)), 1);
  return tensor * mask.view_as(tensor);
}

/// HF PEFT's task_arithmetic, magnitude_prune, ties, dare_linear and dare_ties.
Tensor mixed(std::vector<Tensor> tensors, const std::vector<double>& weights, const std::string& method,
             const Combination& how) {
  for (Tensor& tensor : tensors) tensor = pruned(tensor, method, how.density);
  const Tensor all = torch::stack(tensors);
  const Tensor weight = torch::tensor(weights, torch::kFloat).view({-1, 1, 1});
  if (!method.ends_with("ties")) return (all * weight).sum(0);
  const Tensor sign = all.sign();
  const Tensor total = how.majority_sign == "total" ? all.sum(0) : sign.sum(0);
  const Tensor agrees = sign == torch::where(total >= 0, 1, -1);
  return (all * weight * agrees).sum(0) / agrees.sum(0).clamp_min(1);
}

/// The best approximation of B·A with rank r (Eckart-Young). B contains the singular values.
LowRank truncated(const Tensor& B, const Tensor& A, int64_t r) {
  const auto [u, s, vh] = at::linalg_svd(B.mm(A), /*full_matrices=*/false);
  const int64_t rank = std::min(r, s.size(0));
  const Tensor left = u.slice(1, 0, rank) * s.slice(0, 0, rank), right = vh.slice(0, 0, rank);
  return {right, left, 1};
}

/// As truncated(), for factors that are much smaller than their product, which is never computed.
LowRank truncated_sum(const Tensor& B, const Tensor& A, int64_t r) {
  const auto [left, left_rest] = at::linalg_qr(B.to(torch::kDouble));
  const auto [right, right_rest] = at::linalg_qr(A.t().to(torch::kDouble));
  const LowRank core = truncated(left_rest, right_rest.t(), r);
  return {core.A.mm(right.t()), left.mm(core.B), 1};
}

std::pair<Tensor, Tensor> concatenated(const std::vector<WeightedUpdate>& updates) {
  std::vector<Tensor> A, B;
  for (const auto& [update, weight] : updates) {
    A.push_back(update.A * (weight * update.scale));
    B.push_back(update.B);
  }
  return {torch::cat(A, 0), torch::cat(B, 1)};
}

/// Combines the factors A and B separately. The weight's square root is applied to both, its sign to A.
LowRank factors_mixed(const std::vector<WeightedUpdate>& updates, const Combination& how) {
  std::vector<Tensor> A, B;
  std::vector<double> weights_A, weights_B;
  for (const auto& [update, weight] : updates) {
    const double factor = weight * update.scale, root = std::sqrt(std::abs(factor));
    weights_A.push_back(factor >= 0 ? root : -root);
    weights_B.push_back(root);
    A.push_back(update.A);
    B.push_back(update.B);
  }
  const Tensor a = mixed(A, weights_A, how.method, how);
  return {a, mixed(B, weights_B, how.method, how), 1};
}

LowRank combined(const std::vector<WeightedUpdate>& updates, const Combination& how, int64_t rank,
                 const std::string& path) {
  if (how.method == "cat" || how.method == "svd") {
    const auto [A, B] = concatenated(updates);
    return how.method == "cat" ? LowRank{A, B, 1} : truncated_sum(B, A, rank);
  }
  if (how.method.ends_with("_svd")) {
    std::vector<Tensor> changes;
    std::vector<double> weights;
    for (const auto& [update, weight] : updates) {
      changes.push_back(update.B.mm(update.A) * update.scale);
      weights.push_back(weight);
    }
    const Tensor change = mixed(changes, weights, how.method.substr(0, how.method.size() - 4), how);
    return truncated(change, torch::eye(change.size(1)), rank);
  }
  for (const auto& [update, weight] : updates)
    if (update.A.size(0) != updates.front().update.A.size(0))
      throw ConfigError("'" + path + "': " + how.method + " needs adapters of the same rank; use cat or svd");
  return factors_mixed(updates, how);
}

/// Pads the update with zeros to rank r. Contiguous, fp32.
LowRank padded(const LowRank& update, int64_t r) {
  const int64_t more = r - update.A.size(0);
  return {torch::constant_pad_nd(update.A.to(torch::kFloat), {0, 0, 0, more}).contiguous(),
          torch::constant_pad_nd(update.B.to(torch::kFloat), {0, more}).contiguous(), update.scale};
}

/// The low-rank update of an adapter's module on a site. Throws if it is not one, as virtual tokens and prefixes are
/// not.
LowRank only_update(const Site& site, const AdapterModule& module) {
  const auto* layer = dynamic_cast<const AdapterLayer*>(&module);
  const auto update = layer == nullptr ? std::nullopt : low_rank_of(site, *layer);
  if (!update)
    throw InputError("'" + site.path() +
                     "': its adapter is not a low-rank update B·A and cannot be written as a LoRA; "
                     "use 'peft-run merge'");
  return {update->A.detach().to(torch::kFloat), update->B.detach().to(torch::kFloat), update->scale};
}

std::vector<WeightedUpdate> updates_on(const Site& site, const AdaptedBase& base, const Combination& how) {
  if (!site.copies().empty())
    throw InputError("'" + site.path() +
                     "': its weights were trained in full (modules_to_save, bias) and cannot be written as a LoRA; "
                     "use 'peft-run merge'");
  std::vector<WeightedUpdate> updates;
  for (std::size_t i = 0; i < base.adapters.size(); ++i)
    for (const auto& module : base.adapters[i]->modules_on(site))
      updates.push_back({only_update(site, *module), how.weights.empty() ? 1 : how.weights[i]});
  return updates;
}

}  // namespace

const StringList& combination_methods() {
  static const StringList methods = {"cat",
                                     "svd",
                                     "linear",
                                     "ties",
                                     "dare_linear",
                                     "dare_ties",
                                     "ties_svd",
                                     "dare_linear_svd",
                                     "dare_ties_svd",
                                     "magnitude_prune",
                                     "magnitude_prune_svd"};
  return methods;
}

int64_t largest_rank(const std::vector<SiteUpdate>& updates) {
  int64_t r = 1;
  for (const SiteUpdate& update : updates) r = std::max(r, update.update.A.size(0));
  return r;
}

CombinedAdapters combine(const CombineOptions& options, Plugins& plugins) {
  check(options);
  const torch::NoGradGuard no_grad;
  CombinedAdapters out{load_adapted_base(options.from, plugins), {}};
  if (out.base.model->replicated())
    throw InputError(
        "an adapter replicates layers of the base (layer_replication), which a LoRA file cannot represent; use "
        "'peft-run "
        "merge' or 'peft-run export --as gguf' to write the deeper model");
  const Combination& how = options.combination;
  std::vector<std::pair<Site*, std::vector<WeightedUpdate>>> sites;
  int64_t max_rank = 1;
  for (Site* site : out.base.model->sites()) {
    std::vector<WeightedUpdate> updates = updates_on(*site, out.base, how);
    for (const auto& [update, weight] : updates) max_rank = std::max(max_rank, update.A.size(0));
    if (!updates.empty()) sites.emplace_back(site, std::move(updates));
  }
  if (sites.empty()) throw InputError("the adapters do not change any module");
  const bool unchanged =
      options.from.adapters.size() == 1 && how.method == "cat" && (how.weights.empty() || how.weights[0] == 1);
  torch::manual_seed(how.seed);
  for (auto& [site, updates] : sites)
    out.updates.push_back({site, unchanged && updates.size() == 1
                                     ? updates.front().update
                                     : combined(updates, how, how.rank > 0 ? how.rank : max_rank, site->path())});
  if (unchanged) return out;
  const int64_t r = largest_rank(out.updates);
  for (SiteUpdate& update : out.updates) update.update = padded(update.update, r);
  return out;
}

}  // namespace peft
