#include "peft/nn/block.h"

#include "ops/recompute.h"

namespace peft {

int64_t SublayerCost::saved(int64_t rows, int64_t examples, int64_t element_size) const {
  return rows * saved_per_row + examples * saved_per_example +
         static_cast<int64_t>(adapters.bytes(rows)) / element_size;
}

Sublayer::~Sublayer() = default;

Block::Block(std::vector<std::shared_ptr<Sublayer>> sublayers) : sublayers_(std::move(sublayers)) {}
Block::~Block() = default;

Tensor Block::forward(const Tensor& input, const ForwardContext& context, ActivationCheckpointing checkpointing) const {
  if (checkpointing == ActivationCheckpointing::full)
    return recomputed(input,
                      [this, context](const Tensor& x) { return forward(x, context, ActivationCheckpointing::none); });
  Tensor x = input;
  for (const auto& sublayer : sublayers_) {
    const bool recompute = checkpointing == ActivationCheckpointing::selective && sublayer->recomputed_by_selective();
    x = recompute ? recomputed(x, [sublayer, context](const Tensor& v) { return sublayer->forward(v, context); })
                  : sublayer->forward(x, context);
  }
  return x;
}

std::vector<std::shared_ptr<Site>> Block::sites() const {
  std::vector<std::shared_ptr<Site>> all;
  for (const auto& sublayer : sublayers_)
    for (auto& site : sublayer->sites()) all.push_back(std::move(site));
  return all;
}

Attention* Block::attention() const {
  for (const auto& sublayer : sublayers_)
    if (Attention* attention = sublayer->attention(); attention != nullptr) return attention;
  return nullptr;
}

Site* Block::mlp() const {
  for (const auto& sublayer : sublayers_)
    if (Site* mlp = sublayer->mlp(); mlp != nullptr) return mlp;
  return nullptr;
}

void Block::enable_fusion(bool on) {
  for (const auto& sublayer : sublayers_) sublayer->enable_fusion(on);
}

SiteInfo LayerPosition::site(const std::string& name, const std::string& role) const {
  const auto path = [&](int64_t layer) { return "model.layers." + std::to_string(layer) + "." + name; };
  return {.path = path(index), .role = role, .layer = index, .checkpoint_path = path(source)};
}

}  // namespace peft
