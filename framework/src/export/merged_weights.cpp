#include "export/merged_weights.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "export/stored_values.h"
#include "peft/base/error.h"

namespace peft {

namespace {

/// Whether adapters changed an embedding and an lm_head that shares its weight in the same way.
bool stay_tied(const Site& embedding, const Site& head) {
  if (!head.copies().empty() || (!embedding.copies().empty() && !head.has_tied_weight())) return false;
  return std::ranges::equal(embedding.layers(), head.layers(),
                            [](const auto& layer, const auto& tied) { return tied->tied_to() == layer.get(); });
}

}  // namespace

MergedWeights::MergedWeights(const PretrainedModel& checkpoint, const CausalLm& model, TypeOf type_of)
    : checkpoint_(checkpoint), model_(model), type_of_(std::move(type_of)) {
  unties_ = model.config().tie_word_embeddings && !stay_tied(model.embedding(), model.lm_head());
  for (const Site* site : model.sites()) add(*site);
}

void MergedWeights::add(const Site& site) {
  const bool head = &site == &model_.lm_head();
  if (head && model_.config().tie_word_embeddings && !unties_) return;
  const std::vector<std::string> parameters = site.parameter_names();
  if (parameters.empty() && site.has_adapter())
    throw InputError("'" + site.path() + "' has no weights into which its adapter could be merged");
  for (const std::string& parameter : parameters) {
    const std::string name = site.path() + "." + parameter;
    // A tied head is stored as the embedding.
    const StoredTensor* stored = checkpoint_.find(site.checkpoint_path() + "." + parameter);
    if (head && model_.config().tie_word_embeddings) stored = checkpoint_.find(model_.embedding().path() + ".weight");
    forms_.push_back({name, type_of_(*stored), stored->shape});
    sources_[name] = {&site, parameter == "bias", stored};
  }
}

WeightAndBias MergedWeights::base_of(const Site& site) const {
  const auto read = [&](const std::string& parameter) {
    const auto it = sources_.find(site.path() + "." + parameter);
    if (it == sources_.end()) return Tensor();
    Tensor values = torch::empty(it->second.stored->shape, torch::kFloat);
    checkpoint_.read(*it->second.stored, values.data_ptr<float>());
    return values;
  };
  return {read("weight"), read("bias")};
}

const WeightAndBias& MergedWeights::merged(const Site& site) {
  if (current_ == &site) return weights_;
  const WeightAndBias base = base_of(site);
  auto merged = site.merged_weight(base);
  if (!merged)
    throw InputError("'" + site.path() + "': its adapter cannot be expressed as weights, so it cannot be merged");
  if (merged->bias.defined() && !base.bias.defined())
    throw InputError("'" + site.path() + "': its adapter has a bias, but this module of the model has none");
  current_ = &site;
  weights_ = std::move(*merged);
  base_ = base.weight;
  return weights_;
}

/// `stored` is the merged weight in the type in which it is written.
void MergedWeights::record(const Site& site, const Tensor& stored, StoredType type) {
  const Tensor &merged = weights_.weight, written = decode(stored, merged.sizes(), type);
  // In fp64: the squares of finite values can exceed fp32.
  const auto norm = [](const Tensor& values) { return values.norm(2, torch::kDouble).item<double>(); };
  const double change = norm(merged - base_);
  MergedModule module{.path = site.path(), .dtype = dtype_name(type), .weights = merged.numel()};
  module.unchanged = (written == rounded(base_, type)).sum().item<int64_t>();
  module.error = change > 0 ? norm(written - merged) / change : 0;
  modules_.push_back(std::move(module));
}

std::map<std::string, int64_t> MergedWeights::dtypes() const {
  std::map<std::string, int64_t> counts;
  for (const TensorInfo& form : forms_) ++counts[dtype_name(form.type)];
  return counts;
}

const void* MergedWeights::data(const TensorInfo& form) {
  const torch::NoGradGuard no_grad;
  const Source& source = sources_.at(form.name);
  if (source.site->has_adapter()) {
    const WeightAndBias& weights = merged(*source.site);
    out_ = encode_finite(source.bias ? weights.bias : weights.weight, form.type, form.name);
    if (!source.bias) record(*source.site, out_, form.type);
    return out_.data_ptr();
  }
  if (source.stored->type == form.type && checkpoint_.is_direct(*source.stored)) return source.stored->data;
  out_ = torch::empty(source.stored->shape, torch::kFloat);
  checkpoint_.read(*source.stored, out_.data_ptr<float>());
  out_ = encode_finite(out_, form.type, form.name);
  return out_.data_ptr();
}

}  // namespace peft
