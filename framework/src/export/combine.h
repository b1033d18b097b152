#pragma once

#include <vector>

#include "export/adapted_base.h"
#include "peft/export/combine.h"

namespace peft {

/// The update of a site's weight: scale · B·A.
struct SiteUpdate {
  Site* site;
  LowRank update;
};

/// A base whose adapters are combined into one low-rank update per site, in the model's order.
struct CombinedAdapters {
  AdaptedBase base;
  std::vector<SiteUpdate> updates;
};
/// A single adapter with weight 1 is unchanged, including scales and ranks; other combinations have scale 1 and one
/// rank. Throws InputError if they do not change any module.
CombinedAdapters combine(const CombineOptions& options, Plugins& plugins);
int64_t largest_rank(const std::vector<SiteUpdate>& updates);

}  // namespace peft
