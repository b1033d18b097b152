#pragma once

#include <map>
#include <string>

#include "peft/models/model.h"

namespace peft {

/// Measures what adapters on a site save for the backward pass, because plugins do not declare it: runs
/// passes of a few rows through the site alone. Leaves the random state as it was. If tensors are not counted on the
/// device (see memory_stats), it finds only the input.
class ActivationProfiler {
 public:
  explicit ActivationProfiler(const Model& model);
  ~ActivationProfiler();
  ActivationProfiler(const ActivationProfiler&) = delete;
  ActivationProfiler& operator=(const ActivationProfiler&) = delete;
  /// `site`: a Linear, a Norm, an attention or an MLP of the model.
  SiteActivations profile(const Site& site);

 private:
  const Model& model_;
  Tensor random_;
  std::map<std::string, SiteActivations> known_;  ///< by a text that is equal for sites that differ only in their layer
};

}  // namespace peft
