#pragma once

#include <optional>

#include "ops/low_rank_linear.h"
#include "peft/nn/site.h"

namespace peft {

/// What a layer of the site, a Linear or an Embedding, tells of itself. Throws PluginError where A and B are no factors
/// of an update of the site's weights.
std::optional<LowRank> low_rank_of(const Site& site, const AdapterLayer& layer);

/// What `site` is if it is such a layer: no layer or one that is low-rank, no trained copies.
std::optional<AdaptedLinear> adapted_linear(const Linear& site);

}  // namespace peft
