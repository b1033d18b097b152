// HF PEFT's layer_replication: a deeper model with the same weights.
#include "models/family.h"
#include "peft/base/error.h"
#include "peft/models/model.h"

namespace peft {

namespace {

constexpr std::size_t kMaxLayers = 10'000;  // as in a config.json

[[noreturn]] void refuse(const std::string& what) { throw ConfigError("[adapter] layer_replication: " + what); }

/// The layers that the ranges name, in order.
std::vector<std::size_t> layers_of(const std::vector<std::pair<int64_t, int64_t>>& ranges, int64_t count) {
  std::vector<std::size_t> layers;
  for (const auto& [first, last] : ranges) {
    if (first < 0 || first >= last || last > count)
      refuse(std::string("[").append(std::to_string(first)) + ", " + std::to_string(last) +
             "] is not a range of the model's " + std::to_string(count) + " layers; a range does not include its end");
    for (int64_t layer = first; layer < last; ++layer) layers.push_back(static_cast<std::size_t>(layer));
    if (layers.size() > kMaxLayers) refuse("more than " + std::to_string(kMaxLayers) + " layers");
  }
  if (layers.empty()) refuse("contains no layer");
  return layers;
}

}  // namespace

void Model::replicate_layers(const std::vector<std::pair<int64_t, int64_t>>& ranges) {
  const std::vector<std::size_t> layers = layers_of(ranges, config_.num_hidden_layers);
  for (const Site* site : sites_)
    if (site->has_adapter())
      refuse("another adapter is already on '" + printable(site->path()) +
             "'; declare the adapter that replicates layers first; only one can");
  std::vector<std::shared_ptr<Block>> replicas;
  std::vector<int64_t> sources;
  for (const std::size_t layer : layers) {
    sources.push_back(source_layers_[layer]);
    replicas.push_back(
        family_->make_block(config_, LayerPosition{static_cast<int64_t>(replicas.size()), sources.back()}));
    const auto from = layers_[layer]->sites(), to = replicas.back()->sites();
    for (std::size_t i = 0; i < to.size(); ++i)
      if (from[i]->base_weight() != nullptr) to[i]->load_base_weight(from[i]->base_weight(), from[i]->base_bias());
  }
  layers_ = std::move(replicas);
  source_layers_ = std::move(sources);
  replicated_ = true;
  config_.num_hidden_layers = static_cast<int64_t>(layers_.size());
  register_sites();
}

}  // namespace peft
