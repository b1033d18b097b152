#include "nn/module_check.h"

#include <ATen/autocast_mode.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <sstream>
#include <stdexcept>

#include "peft/base/error.h"
#include "plugin/plugin_call.h"
#include "runtime/describe.h"

namespace peft {

namespace {

/// The watches of all runs of the process. A backward pass may recompute on other threads than the run's.
struct Watches {
  std::mutex mutex;
  std::vector<const ParameterWatch*> all;
  std::atomic<int> count = 0;
};

Watches& watches() {
  static Watches all;
  return all;
}

std::string name_of(const Site& site) { return "'" + printable(site.path()) + "'"; }

}  // namespace

ParameterWatch::ParameterWatch(const std::vector<Site*>& sites, const NamedTensors& parameters)
    : sites_(sites.begin(), sites.end()) {
  for (const auto& [name, tensor] : parameters) parameters_.insert(tensor.unsafeGetTensorImpl());
  const std::lock_guard lock(watches().mutex);
  watches().all.push_back(this);
  ++watches().count;
}

ParameterWatch::~ParameterWatch() {
  const std::lock_guard lock(watches().mutex);
  std::erase(watches().all, this);
  --watches().count;
}

const ParameterWatch* ParameterWatch::of(const Site& site) {
  if (watches().count == 0) return nullptr;
  const std::lock_guard lock(watches().mutex);
  for (const ParameterWatch* watch : watches().all)
    if (watch->sites_.contains(&site)) return watch;
  return nullptr;
}

std::string ParameterWatch::unknown(const std::vector<Tensor>& leaves) const {
  std::string text;
  for (const Tensor& leaf : leaves)
    if (!parameters_.contains(leaf.unsafeGetTensorImpl())) text += (text.empty() ? "" : ", ") + describe(leaf);
  return text;
}

ModuleGraph::ModuleGraph(const Site& site)
    : site_(site), watch_(at::GradMode::is_enabled() ? ParameterWatch::of(site) : nullptr) {}

void ModuleGraph::add_input(const Tensor& tensor) {
  if (watch_ != nullptr) inputs_.push_back(gradient_edge_of(tensor));
}

void ModuleGraph::add_result(const Tensor& tensor) {
  if (watch_ != nullptr) results_.push_back(gradient_edge_of(tensor));
}

void ModuleGraph::check() const {
  if (watch_ == nullptr) return;
  const std::string unknown = watch_->unknown(leaves_between(inputs_, results_));
  if (!unknown.empty())
    throw std::logic_error(name_of(site_) +
                           " uses a tensor that requires a gradient but is not a registered parameter (" + unknown +
                           "): it would be neither trained nor saved; create it with register_parameter, or with "
                           "register_buffer and without requires_grad if it is to stay as it is");
}

namespace {

/// dtype: nullopt for any floating-point one.
void check_tensor(const Site& site, const char* what, const Tensor& tensor, at::IntArrayRef sizes,
                  std::optional<torch::Dtype> dtype) {
  if (tensor.defined() && tensor.sizes() == sizes &&
      (dtype ? tensor.scalar_type() == *dtype : tensor.is_floating_point()))
    return;
  std::ostringstream wanted;
  if (dtype)
    wanted << describe(*dtype, sizes);
  else
    wanted << sizes << " of a floating-point dtype";
  throw std::logic_error(name_of(site) + ": " + what + " is " + describe(tensor) + "; it must be " + wanted.str());
}

/// The dtype that layers take and return; nullopt where autocast may choose it.
std::optional<torch::Dtype> activation_dtype(const Site& site, const Tensor& x) {
  if (at::autocast::is_autocast_enabled(x.device().type())) return std::nullopt;
  return x.is_floating_point() ? x.scalar_type() : site.dtype();
}

}  // namespace

void check_layer_result(const Site& site, const Tensor& x, const Tensor& result) {
  std::vector<int64_t> sizes = x.sizes().vec();
  if (const auto* linear = dynamic_cast<const Linear*>(&site))
    sizes.back() = linear->out_features();
  else if (const auto* embedding = dynamic_cast<const Embedding*>(&site))
    sizes.push_back(embedding->hidden());
  check_tensor(site, "the result", result, sizes, activation_dtype(site, x));
}

void check_layer_input(const Site& site, const Tensor& x, const Tensor& input) {
  if (!x.is_floating_point()) {
    if (!input.defined() || input.scalar_type() != x.scalar_type())
      throw std::logic_error(name_of(site) + ": the argument of next is " + describe(input) + "; it must be token ids");
    return;
  }
  std::vector<int64_t> sizes = input.defined() ? input.sizes().vec() : std::vector<int64_t>();
  if (sizes.empty())
    sizes = x.sizes().vec();
  else
    sizes.back() = x.size(-1);
  check_tensor(site, "the argument of next", input, sizes, activation_dtype(site, x));
}

Tensor checked_rows(const Embedding& site, const VirtualTokens& tokens) {
  ModuleGraph graph(site);
  const Tensor rows = tokens.rows();
  detail::call_plugin(tokens, "rows", [&] {
    check_tensor(site, "the embeddings of virtual tokens", rows, {tokens.count(), site.hidden()}, std::nullopt);
    graph.add_result(rows);
    graph.check();
  });
  return rows;
}

KeysAndValues checked_keys_and_values(const Attention& site, const VirtualKeys& prefix) {
  ModuleGraph graph(site);
  const KeysAndValues both = prefix.keys_and_values();
  detail::call_plugin(prefix, "keys_and_values", [&] {
    const AttentionShape& shape = site.shape();
    const std::vector<int64_t> sizes = {prefix.count(), shape.kv_heads, shape.head_dim};
    check_tensor(site, "the prefix's keys", both.keys, sizes, std::nullopt);
    check_tensor(site, "the prefix's values", both.values, sizes, std::nullopt);
    graph.add_result(both.keys);
    graph.add_result(both.values);
    graph.check();
  });
  return both;
}

Tensor checked_gate(const Attention& site, const VirtualKeys& prefix) {
  ModuleGraph graph(site);
  const Tensor gate = prefix.gate();
  detail::call_plugin(prefix, "gate", [&] {
    check_tensor(site, "the prefix's gate", gate, {1}, std::nullopt);
    graph.add_result(gate);
    graph.check();
  });
  return gate;
}

}  // namespace peft
