#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/nn/site.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// How several low-rank adapters are combined into one, with the names and results of HF PEFT's add_weighted_adapter.
/// With ΔWᵢ = sᵢ·Bᵢ·Aᵢ, the update of adapter i, and its weight wᵢ:
///   cat              Σ wᵢ·ΔWᵢ exactly; the rank is the sum of the ranks
///   svd              the best approximation of that sum with rank `rank`
///   linear           Σ √(wᵢsᵢ)·Aᵢ and Σ √(wᵢsᵢ)·Bᵢ; an approximation that contains products of different adapters
///   ties             linear after pruning, for elements with the sign of the majority (Yadav et al. 2023)
///   magnitude_prune  linear after pruning all but the largest `density` of each tensor
///   dare_linear, dare_ties  linear and ties after random pruning and scaling by 1 / density (Yu et al. 2023)
///   …_svd            the last five applied to the ΔWᵢ instead of their factors, followed by svd
struct Combination {
  std::string method = "cat";
  std::vector<double> weights;          ///< one per adapter, may be negative; empty: all 1
  double density = 1;                   ///< share of the elements that pruning retains; above 0, at most 1
  int64_t rank = 0;                     ///< for svd; 0: the largest rank of the adapters
  std::string majority_sign = "total";  ///< for ties: "total" (sign of the sum) or "frequency" (most frequent sign)
  uint64_t seed = 0;                    ///< for dare
};
/// Names of all methods.
PEFT_API const StringList& combination_methods();

/// A model and the adapters to merge into it or to export.
struct AdaptedModelOptions {
  std::string model;    ///< Hugging Face folder, or .gguf file
  StringList adapters;  ///< folders, in this order
  bool any_base = false;
  bool ignore_unknown = false;  ///< unknown keys in the configs of model and adapters are noted instead of refused
};

struct CombineOptions {
  AdaptedModelOptions from;
  Combination combination;
};

/// What a user should know about how files were read, a line each.
struct ReadingNotes {
  StringList model, adapters;
};

/// Writes the adapters as one LoRA in HF PEFT's format, with one rank and scale 1, to a folder that does not exist yet.
/// Throws ConfigError for an invalid combination, InputError, with the module, for an adapter that is not a low-rank
/// update.
PEFT_API ReadingNotes export_lora(const CombineOptions& options, const std::string& output, Plugins& plugins);

}  // namespace peft
