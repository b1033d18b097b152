// HF PEFT's layer_replication: a deeper model of the same weights.
#include "models/blocks.h"
#include "peft/base/error.h"
#include "peft/models/decoder.h"

namespace peft {

namespace {

constexpr std::size_t kMostLayers = 10'000;  // as of a config.json

[[noreturn]] void refuse(const std::string& what) { throw ConfigError("[adapter] layer_replication: " + what); }

/// The layers that the ranges name, in order.
std::vector<std::size_t> layers_of(const std::vector<std::pair<int64_t, int64_t>>& ranges, int64_t count) {
  std::vector<std::size_t> layers;
  for (const auto& [first, last] : ranges) {
    if (first < 0 || first >= last || last > count)
      refuse(std::string("[").append(std::to_string(first)) + ", " + std::to_string(last) +
             "] is no range of the model's " + std::to_string(count) +
             " layers; the last one of a range is not part of it");
    for (int64_t layer = first; layer < last; ++layer) layers.push_back(static_cast<std::size_t>(layer));
    if (layers.size() > kMostLayers) refuse("more than " + std::to_string(kMostLayers) + " layers");
  }
  if (layers.empty()) refuse("names no layer");
  return layers;
}

}  // namespace

void Model::replicate_layers(const std::vector<std::pair<int64_t, int64_t>>& ranges) {
  const std::vector<std::size_t> layers = layers_of(ranges, config_.num_hidden_layers);
  for (const Site* site : sites_)
    if (site->has_adapter())
      refuse("another adapter is on '" + printable(site->path()) +
             "' already; the one that replicates layers must be declared first, and only one can");
  std::vector<std::shared_ptr<Block>> blocks;
  std::vector<int64_t> stored;
  for (const std::size_t layer : layers) {
    stored.push_back(source_layers_[layer]);
    blocks.push_back(
        std::make_shared<Block>(config_, LayerPosition{static_cast<int64_t>(blocks.size()), stored.back()}));
    const auto from = blocks_[layer]->sites(), to = blocks.back()->sites();
    for (std::size_t i = 0; i < to.size(); ++i)
      if (from[i]->frozen().weight.defined()) to[i]->set_frozen(from[i]->frozen());
  }
  blocks_ = std::move(blocks);
  source_layers_ = std::move(stored);
  replicated_ = true;
  config_.num_hidden_layers = static_cast<int64_t>(blocks_.size());
  register_sites();
}

}  // namespace peft
