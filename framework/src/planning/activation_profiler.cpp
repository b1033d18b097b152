#include "planning/activation_profiler.h"

#include <torch/torch.h>

#include <algorithm>
#include <sstream>
#include <typeinfo>

#include "peft/runtime/memory.h"
#include "plugin/plugin_call.h"
#include "runtime/rng_state.h"

namespace peft {

namespace {

/// Those of a site of which the model has only the parts, around nothing.
Tensor around_nothing(const Site& site, std::size_t first, const Tensor& x) {
  if (first == site.layers().size()) return x.clone();
  AdapterLayer& layer = *site.layers()[first];
  return detail::call_plugin_with_callback(layer, "forward", [&](detail::CoreCallback& outside) {
    return layer.forward(x,
                         [&](const Tensor& v) { return outside([&] { return around_nothing(site, first + 1, v); }); });
  });
}

Tensor pass(const Site& site, const Tensor& x) {
  if (const auto* linear = dynamic_cast<const Linear*>(&site)) return linear->forward(x);
  if (const auto* norm = dynamic_cast<const Norm*>(&site)) return norm->forward(x);
  return around_nothing(site, 0, x);
}

struct Kept {
  double bytes;
  bool input;
};

Kept kept_by(const Site& site, const Tensor& x) {
  const auto tensors = x.use_count(), storages = x.storage().use_count();
  const uint64_t before = memory_stats(x.device()).allocated;
  const Tensor y = pass(site, x);
  const uint64_t after = memory_stats(x.device()).allocated;
  const bool own_output = !y.is_alias_of(x);
  const auto output = static_cast<double>(own_output ? y.storage().nbytes() : 0);
  const double bytes = static_cast<double>(after) - static_cast<double>(before) - output;
  return {std::max(bytes, 0.0), x.use_count() > tensors || x.storage().use_count() > storages};
}

/// What makes one site's memory another one's.
std::string kind_of(const Site& site) {
  std::ostringstream kind;
  kind << site.role();
  for (const auto& layer : site.layers()) {
    const AdapterLayer& one = *layer;
    kind << ' ' << typeid(one).name();
  }
  for (const auto& [name, tensor] : site.adapter_tensors())
    kind << ' ' << name << tensor.sizes() << tensor.scalar_type() << tensor.requires_grad();
  return kind.str();
}

}  // namespace

ActivationProfiler::ActivationProfiler(const Model& model) : model_(model), random_(random_state(model.device())) {}

ActivationProfiler::~ActivationProfiler() { set_random_state(model_.device(), random_); }

SiteMemory ActivationProfiler::of(const Site& site) {
  const auto [at, fresh] = known_.try_emplace(kind_of(site));
  if (!fresh) return at->second;
  const torch::AutoGradMode gradients(true);
  const auto* linear = dynamic_cast<const Linear*>(&site);
  const int64_t features = linear == nullptr ? model_.config().hidden_size : linear->in_features();
  const auto of_rows = [&](int64_t rows) {
    const auto form = torch::dtype(model_.dtype()).device(model_.device());
    return kept_by(site, torch::ones({rows, features}, form.requires_grad(true)).clone());  // no leaf: those are held
  };
  constexpr int64_t few = 16, more = 48;
  of_rows(few);  // what a layer makes once, at its first pass, is no pass's own
  const Kept first = of_rows(few), second = of_rows(more);
  SiteMemory& memory = at->second;
  memory.by_row = std::max((second.bytes - first.bytes) / static_cast<double>(more - few), 0.0);
  memory.fixed = std::max(first.bytes - memory.by_row * static_cast<double>(few), 0.0);
  memory.input = second.input;
  return memory;
}

}  // namespace peft
