#include "peft/models/decoder.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "models/blocks.h"
#include "models/target_rows.h"
#include "nn/prefix.h"
#include "ops/kernels.h"
#include "ops/recompute.h"
#include "ops/rotary.h"
#include "peft/files/pretrained_model.h"
#include "peft/runtime/memory.h"

namespace peft {

Model::~Model() = default;

Model::Model(DecoderConfig config) : config_(std::move(config)) {
  const DecoderConfig& c = config_;
  embedding_ = std::make_shared<Embedding>(SiteInfo{"model.embed_tokens", "embedding"}, c.vocab_size, c.hidden_size);
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer)
    blocks_.push_back(std::make_shared<Block>(c, LayerPosition{layer, layer}));
  source_layers_.resize(blocks_.size());
  std::iota(source_layers_.begin(), source_layers_.end(), 0);
  norm_ = std::make_shared<Norm>(SiteInfo{"model.norm", "norm"}, c.hidden_size, c.rms_norm_eps);
  head_ = std::make_shared<Linear>(SiteInfo{"lm_head", "lm_head"}, c.hidden_size, c.vocab_size, false);
  rope_ = std::make_shared<RopeFrequencies>(rope_frequencies(c.rope, c.head_dim));

  register_sites();
}

/// All sites there are now, flat: a site's path is its name, and torch allows no dot in one.
void Model::register_sites() {
  for (const auto& child : named_children()) unregister_module(child.key());
  sites_.clear();
  const auto add = [this](const std::shared_ptr<Site>& site) {
    std::string name = site->path();
    std::replace(name.begin(), name.end(), '.', '/');
    sites_.push_back(register_module(name, site).get());
  };
  add(embedding_);
  for (const auto& block : blocks_)
    for (const auto& site : block->sites()) add(site);
  add(norm_);
  add(head_);
  checkpointing_.assign(blocks_.size(), ActivationCheckpointing::none);
}

bool Model::vocabulary_resized() const {
  const AddedVocabulary* added = origin_.checkpoint == nullptr ? nullptr : origin_.checkpoint->added();
  return added != nullptr && added->rows != added->stored_rows;
}

/// With `in_front` virtual rows before each example, which the result still has.
Tensor Model::body(const PackedTokens& input, KeyValueCache* cache, int64_t in_front) const {
  const int64_t before = cache == nullptr ? 0 : cache->length;
  Tensor x = embedding_->forward(input.ids), positions = input.positions + virtual_positions();
  if (in_front > 0) {
    const Tensor first = at::arange(virtual_positions() - in_front, virtual_positions(), positions.options());
    positions = prepend_to_each(first, positions, input.cu_seqlens);
    x = prepend_to_each(virtual_rows(*embedding_).to(x.scalar_type()), x, input.cu_seqlens);
  }
  const Rotation rotation = rotate(*rope_, positions);
  const ForwardContext context{.cos = rotation.cos.to(x.scalar_type()),
                               .sin = rotation.sin.to(x.scalar_type()),
                               .cu_seqlens = shift_cu_seqlens(in_front, input.cu_seqlens),
                               .cache = cache,
                               .before = before > 0 ? virtual_tokens() + before : 0};
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    ActivationCheckpointing keeping = checkpointing_[layer];
    // Below the lowest adapter there is no backward pass to keep anything for.
    if (keeping != ActivationCheckpointing::none && !x.requires_grad() &&
        std::ranges::none_of(blocks_[layer]->sites(), &Site::has_adapter))
      keeping = ActivationCheckpointing::none;
    x = blocks_[layer]->forward(x, context, layer, keeping);
  }
  if (cache != nullptr) cache->length += input.ids.size(0);
  return x;
}

Tensor Model::hidden_states(const PackedTokens& input, KeyValueCache* cache) const {
  const int64_t in_front = cache == nullptr || cache->length == 0 ? virtual_tokens() : 0;
  const Tensor rows = body(input, cache, in_front);
  return norm_->forward(in_front > 0 ? strip_from_each(in_front, rows, input.cu_seqlens) : rows);
}

Tensor Model::logits(const Tensor& hidden) const { return head_->forward(hidden); }

Model::TargetRows Model::target_rows(const PackedTokens& input, const Tensor& labels) const {
  const int64_t n = virtual_tokens();
  const Tensor ignored = at::full({n}, -100, labels.options());
  const auto [rows, targets] = select_target_rows(shift_cu_seqlens(n, input.cu_seqlens),
                                                  n > 0 ? prepend_to_each(ignored, labels, input.cu_seqlens) : labels);
  return {norm_->forward(body(input, nullptr, n).index_select(0, rows)), targets};
}

KeyValueCache Model::make_cache(int64_t capacity) const {
  const torch::NoGradGuard no_grad;
  KeyValueCache cache;
  const auto options = embedding_->frozen().weight.options().requires_grad(false);
  for (const auto& block : blocks_)
    for (auto* side : {&cache.keys, &cache.values}) {
      const int64_t places = keys_in_front(*block->self_attn) + virtual_tokens() + capacity;
      side->push_back(torch::empty({config_.num_key_value_heads, places, config_.head_dim}, options));
    }
  return cache;
}

int64_t Model::virtual_tokens() const { return virtual_count(*embedding_); }

int64_t Model::virtual_positions() const {
  int64_t keys = 0;
  for (const auto& block : blocks_) keys = std::max(keys, keys_in_front(*block->self_attn));
  return keys + virtual_tokens();
}

Site* Model::find(const std::string& path) const {
  for (Site* site : sites_)
    if (site->path() == path) return site;
  return nullptr;
}

std::vector<Site*> Model::attentions() const {
  std::vector<Site*> all;
  for (const auto& block : blocks_) all.push_back(block->self_attn.get());
  return all;
}

std::vector<Site*> Model::mlps() const {
  std::vector<Site*> all;
  for (const auto& block : blocks_) all.push_back(block->mlp.get());
  return all;
}

NamedTensors Model::adapter_tensors() const {
  NamedTensors all;
  for (const Site* site : sites_)
    for (auto& [name, tensor] : site->adapter_tensors()) all.emplace_back(site->path() + "." + name, tensor);
  return all;
}

NamedTensors Model::trainable() const {
  NamedTensors all = adapter_tensors();
  std::erase_if(all, [](const NamedTensor& item) { return !item.second.requires_grad(); });
  return all;
}

NamedTensors Model::frozen() const {
  NamedTensors all;
  std::set<std::string> told;
  for (const Site* site : sites_) {
    const std::string& path = site->checkpoint_path();
    if ((site == head_.get() && config_.tie_word_embeddings) || !told.insert(path).second) continue;
    const WeightAndBias& own = site->frozen();
    if (own.weight.defined()) all.emplace_back(path + ".weight", own.weight);
    if (own.bias.defined()) all.emplace_back(path + ".bias", own.bias);
  }
  return all;
}

void Model::set_checkpointing(std::vector<ActivationCheckpointing> of_layers) {
  TORCH_CHECK(of_layers.size() == blocks_.size(), "one setting for each of ", blocks_.size(), " layers");
  checkpointing_ = std::move(of_layers);
}

void Model::enable_adapters(bool on) {
  for (Site* site : sites_) site->enable_adapters(on);
}

void Model::enable_fusion(bool on) {
  for (Site* site : sites_) site->enable_fusion(on);
  for (const auto& block : blocks_) block->fused = on;
}

torch::Device Model::device() const { return embedding_->frozen().weight.device(); }
torch::Dtype Model::dtype() const { return embedding_->frozen().weight.scalar_type(); }

}  // namespace peft
