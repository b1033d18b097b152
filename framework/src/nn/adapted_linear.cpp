#include "nn/adapted_linear.h"

#include "nn/module_check.h"
#include "plugin/plugin_call.h"

namespace peft {

std::optional<LowRank> low_rank_of(const Site& site, const AdapterLayer& layer) {
  return detail::call_plugin(layer, "as_lora", [&] {
    ModuleGraph graph(site);
    auto update = layer.as_lora();
    if (!update) return update;
    const auto& [A, B, scale] = *update;
    const std::vector<int64_t> sizes = site.weight_sizes();
    TORCH_CHECK(sizes.size() == 2, "'", site.path(), "' has no matrix that could be updated");
    const bool is_lookup = dynamic_cast<const Embedding*>(&site) != nullptr;
    const int64_t in = sizes[is_lookup ? 0 : 1], out = sizes[is_lookup ? 1 : 0];
    TORCH_CHECK(A.defined() && B.defined(), "A or B is undefined for '", site.path(), "'");
    TORCH_CHECK(A.dim() == 2 && B.dim() == 2 && A.size(1) == in && B.size(0) == out && A.size(0) == B.size(1), "A is ",
                A.sizes(), " and B ", B.sizes(), " where '", site.path(), "' needs [r, ", in, "] and [", out, ", r]");
    graph.add_result(A);
    graph.add_result(B);
    graph.check();
    return update;
  });
}

std::optional<AdaptedLinear> adapted_linear(const Linear& site) {
  if (site.uses_copies() || site.adapter_modules().size() > 1) return std::nullopt;
  AdaptedLinear out{site.base_weight(), site.base_bias(), {}};
  if (!site.adapted()) return out;
  out.update = low_rank_of(site, *site.layers().front());
  return out.update ? std::optional(out) : std::nullopt;
}

}  // namespace peft
