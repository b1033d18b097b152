#include "planning/activation_profiler.h"

#include <torch/torch.h>

#include <algorithm>
#include <sstream>
#include <typeinfo>

#include "peft/runtime/memory.h"
#include "runtime/rng_state.h"

namespace peft {

namespace {

/// Attention and MLP have no weights of their own: only their adapter layers run.
Tensor pass(const Site& site, const Tensor& x) {
  if (const auto* linear = dynamic_cast<const Linear*>(&site)) return linear->forward(x);
  if (const auto* norm = dynamic_cast<const Norm*>(&site)) return norm->forward(x);
  return site.apply_layers(x, [](const Tensor& v) { return v.clone(); });
}

struct Saved {
  double bytes;
  bool input;
};

Saved saved_by(const Site& site, const Tensor& x) {
  const auto tensors = x.use_count(), storages = x.storage().use_count();
  const uint64_t before = memory_stats(x.device()).allocated;
  const Tensor y = pass(site, x);
  const uint64_t after = memory_stats(x.device()).allocated;
  const bool own_output = !y.is_alias_of(x);
  const auto output = static_cast<double>(own_output ? y.storage().nbytes() : 0);
  const double bytes = static_cast<double>(after) - static_cast<double>(before) - output;
  return {std::max(bytes, 0.0), x.use_count() > tensors || x.storage().use_count() > storages};
}

/// Sites with the same text save the same.
std::string kind_of(const Site& site) {
  std::ostringstream kind;
  kind << site.role();
  for (const auto& module : site.adapter_modules()) {
    const AdapterModule& adapter = *module;
    kind << ' ' << typeid(adapter).name();
  }
  for (const auto& [name, tensor] : site.adapter_tensors())
    kind << ' ' << name << tensor.sizes() << tensor.scalar_type() << tensor.requires_grad();
  return kind.str();
}

}  // namespace

ActivationProfiler::ActivationProfiler(const Model& model) : model_(model), random_(random_state(model.device())) {}

ActivationProfiler::~ActivationProfiler() { set_random_state(model_.device(), random_); }

SiteActivations ActivationProfiler::profile(const Site& site) {
  const auto [entry, is_new] = known_.try_emplace(kind_of(site));
  if (!is_new) return entry->second;
  const torch::AutoGradMode gradients(true);
  const auto* linear = dynamic_cast<const Linear*>(&site);
  const int64_t features = linear == nullptr ? model_.config().hidden_size : linear->in_features();
  const auto of_rows = [&](int64_t rows) {
    const auto options = torch::dtype(model_.dtype()).device(model_.device());
    // A clone, because leaves are held by the graph.
    return saved_by(site, torch::ones({rows, features}, options.requires_grad(true)).clone());
  };
  constexpr int64_t few = 16, more = 48;
  of_rows(few);  // allocates what a layer creates once, in its first pass
  const Saved first = of_rows(few), second = of_rows(more);
  SiteActivations& activations = entry->second;
  activations.bytes_per_row = std::max((second.bytes - first.bytes) / static_cast<double>(more - few), 0.0);
  activations.fixed_bytes = std::max(first.bytes - activations.bytes_per_row * static_cast<double>(few), 0.0);
  activations.saves_input = second.input;
  return activations;
}

}  // namespace peft
