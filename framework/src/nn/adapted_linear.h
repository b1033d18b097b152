#pragma once

#include <optional>

#include "ops/low_rank_linear.h"
#include "peft/nn/linear.h"

namespace peft {

/// AdapterLayer::as_lora of a layer on `site`, a Linear or an Embedding. Throws PluginError if the shapes of A and B do
/// not fit the site.
std::optional<LowRank> low_rank_of(const Site& site, const AdapterLayer& layer);

/// `site` as a frozen layer with a low-rank update, if it is that: at most one layer, which is low-rank, and no
/// trainable copies.
std::optional<AdaptedLinear> adapted_linear(const Linear& site);

}  // namespace peft
