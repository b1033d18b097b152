#include "nn/adapted_linear.h"

#include "plugin/plugin_call.h"

namespace peft {

std::optional<LowRank> low_rank_of(const Site& site, const AdapterLayer& layer) {
  return detail::call_plugin(layer, "low_rank", [&] {
    auto update = layer.as_lora();
    if (!update) return update;
    const auto& [A, B, scale] = *update;
    const Tensor& weight = site.frozen().weight;
    TORCH_CHECK(weight.defined() && weight.dim() == 2, "'", site.path(), "' has no matrix that could be updated");
    const bool by_rows = dynamic_cast<const Embedding*>(&site) != nullptr;
    const int64_t in = weight.size(by_rows ? 0 : 1), out = weight.size(by_rows ? 1 : 0);
    TORCH_CHECK(A.dim() == 2 && B.dim() == 2 && A.size(1) == in && B.size(0) == out && A.size(0) == B.size(1), "A is ",
                A.sizes(), " and B ", B.sizes(), " where '", site.path(), "' needs [r, ", in, "] and [", out, ", r]");
    return update;
  });
}

std::optional<AdaptedLinear> adapted_linear(const Linear& site) {
  AdaptedLinear out{site.frozen().weight, site.frozen().bias, {}};
  if (site.uses_copies() || site.layers().size() > 1) return std::nullopt;
  if (!site.adapted()) return out;
  out.update = low_rank_of(site, *site.layers().front());
  return out.update ? std::optional(out) : std::nullopt;
}

}  // namespace peft
