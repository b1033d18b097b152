#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/nn/site.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// How several low-rank adapters become one: HF PEFT's add_weighted_adapter, its names and its results. Where ΔWᵢ =
/// sᵢ·Bᵢ·Aᵢ is what adapter i adds to a weight and wᵢ its weight:
///   cat              Σ wᵢ·ΔWᵢ exactly, of the sum of the ranks
///   svd              the best approximation of that sum of rank `rank`
///   linear           Σ √(wᵢsᵢ)·Aᵢ and Σ √(wᵢsᵢ)·Bᵢ: rough, since products of different adapters come in
///   ties             the same of pruned tensors, of each element the majority's sign (Yadav et al. 2023)
///   magnitude_prune  linear, of each tensor only the largest `density`
///   dare_linear, dare_ties  pruned at random and scaled up by 1 / density (Yu et al. 2023)
///   …_svd            of the last five: of the ΔWᵢ themselves, then as svd
struct Combination {
  std::string method = "cat";
  std::vector<double> weights;          ///< one for each adapter, negative too; empty: 1 each
  double density = 1;                   ///< of what is pruned: the share that stays, 0 to 1
  int64_t rank = 0;                     ///< of svd; 0: the largest of the adapters' ranks
  std::string majority_sign = "total";  ///< of ties: "total" (of the values' sum) or "frequency" (of the signs)
  uint64_t seed = 0;                    ///< of dare
};
/// The methods' names.
PEFT_API const StringList& combination_methods();

struct CombineOptions {
  std::string model;    ///< Hugging Face folder, or .gguf file
  StringList adapters;  ///< folders
  bool any_base = false;
  Combination combination;
};

/// Writes the adapters as one LoRA in HF PEFT's form, of one rank, scale 1, into a folder that does not exist yet.
/// Throws ConfigError for a combination that cannot be, InputError for an adapter that is no low-rank update, naming
/// the module. Returns adapters that do not say which base they were trained on.
PEFT_API StringList export_lora(const CombineOptions& options, const std::string& output, Plugins& plugins);

}  // namespace peft
