#include "peft/data/sampler.h"

#include <algorithm>
#include <numeric>

namespace peft {

namespace {

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere, which std::shuffle does not promise.
class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : state_(seed) { state_ = next() ^ (stream * 0xD1342543DE82EF95u + 1); }
  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  /// Evenly below `limit` (> 0).
  uint64_t below(uint64_t limit) {
    const uint64_t uneven = (0 - limit) % limit;  // 2^64 mod limit: these many values would be one too often
    for (;;)
      if (const uint64_t value = next(); value >= uneven) return value % limit;
  }

 private:
  uint64_t state_;
};

}  // namespace

int64_t Batch::num_target_tokens(bool has_virtual_tokens) const {
  int64_t count = 0;
  for (std::size_t e = 0; e + 1 < cu_seqlens.size(); ++e)
    for (int64_t i = cu_seqlens[e] + (has_virtual_tokens ? 0 : 1); i < cu_seqlens[e + 1]; ++i)
      count += labels[static_cast<std::size_t>(i)] != ignored_label;
  return count;
}

std::vector<std::size_t> epoch_order(std::size_t size, uint64_t seed, int64_t epoch) {
  std::vector<std::size_t> order(size);
  std::iota(order.begin(), order.end(), std::size_t{0});
  Random random(seed, static_cast<uint64_t>(epoch));
  for (std::size_t i = size; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

std::vector<std::vector<std::size_t>> epoch_batches(const Dataset& data, int64_t batch_size, bool packing,
                                                    int64_t max_length, uint64_t seed, int64_t epoch) {
  std::vector<std::vector<std::size_t>> batches;
  int64_t tokens = 0;
  for (const std::size_t index : epoch_order(data.examples.size(), seed, epoch)) {
    const auto length = static_cast<int64_t>(data.examples[index].ids.size());
    const bool full = batches.empty() || (packing ? tokens + length > batch_size * max_length
                                                  : static_cast<int64_t>(batches.back().size()) == batch_size);
    if (full) {
      batches.emplace_back();
      tokens = 0;
    }
    batches.back().push_back(index);
    tokens += length;
  }
  return batches;
}

std::vector<std::vector<std::size_t>> evaluation_batches(const Dataset& data, int64_t batch_size) {
  std::vector<std::vector<std::size_t>> batches;
  for (std::size_t index = 0; index < data.examples.size(); ++index) {
    if (index % static_cast<std::size_t>(batch_size) == 0) batches.emplace_back();
    batches.back().push_back(index);
  }
  return batches;
}

Batch make_batch(const Dataset& data, const std::vector<std::size_t>& examples) {
  Batch batch;
  batch.cu_seqlens.push_back(0);
  for (const std::size_t index : examples) {
    const Example& example = data.examples.at(index);
    batch.ids.insert(batch.ids.end(), example.ids.begin(), example.ids.end());
    batch.labels.insert(batch.labels.end(), example.labels.begin(), example.labels.end());
    for (std::size_t i = 0; i < example.ids.size(); ++i) batch.positions.push_back(static_cast<int64_t>(i));
    batch.cu_seqlens.push_back(static_cast<int64_t>(batch.ids.size()));
  }
  return batch;
}

}  // namespace peft
