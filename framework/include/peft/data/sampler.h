#pragma once

#include <cstdint>
#include <vector>

#include "peft/base/export.h"
#include "peft/data/dataset.h"

namespace peft {

/// Concatenated examples, without padding; attention never crosses from one into the next.
struct Batch {
  std::vector<int64_t> ids;         ///< [tokens]
  std::vector<int64_t> labels;      ///< [tokens], ignored_label where not a target; not shifted
  std::vector<int64_t> positions;   ///< [tokens], restarting at 0 in each example
  std::vector<int64_t> cu_seqlens;  ///< [examples + 1], offsets into ids
  /// Labels with a token before them in their own example. After virtual tokens the first one counts too.
  PEFT_API int64_t num_target_tokens(bool has_virtual_tokens = false) const;
};

/// The order of an epoch: a permutation of 0..size-1, a pure function of (seed, epoch), the same on every machine.
PEFT_API std::vector<std::size_t> epoch_order(std::size_t size, uint64_t seed, int64_t epoch);

/// The batches of an epoch as example indices. Without packing: `batch_size` examples each, the last may be smaller.
/// With packing: as many as fit into batch_size · max_length tokens (a longer one goes alone), in the epoch's order.
PEFT_API std::vector<std::vector<std::size_t>> epoch_batches(const Dataset& data, int64_t batch_size, bool packing,
                                                             int64_t max_length, uint64_t seed, int64_t epoch);

/// All examples once, in file order, `batch_size` at a time; the last batch may be smaller.
PEFT_API std::vector<std::vector<std::size_t>> evaluation_batches(const Dataset& data, int64_t batch_size);

PEFT_API Batch make_batch(const Dataset& data, const std::vector<std::size_t>& examples);

}  // namespace peft
