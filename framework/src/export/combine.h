#pragma once

#include <vector>

#include "export/adapted_base.h"
#include "peft/export/combine.h"

namespace peft {

/// What is added to one site's weight: scale · B·A.
struct SiteUpdate {
  Site* site;
  LowRank update;
};

/// A base whose adapters have become one low-rank update a site, in the model's order.
struct CombinedAdapters {
  AdaptedBase base;
  std::vector<SiteUpdate> updates;
};
/// A single adapter of weight 1 stays as it is, scale and ranks; any other combination has scale 1 and one rank.
/// Throws InputError where they change no module.
CombinedAdapters combine(const CombineOptions& options, Plugins& plugins);
int64_t largest_rank(const std::vector<SiteUpdate>& updates);

}  // namespace peft
