#pragma once
// What an adapter's modules return is checked where a site uses it, so that a mistake is reported with the plugin and
// the site, and not as a failure of the operation that follows.

#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "peft/nn/attention.h"
#include "peft/nn/embedding.h"
#include "runtime/autograd_leaves.h"

namespace peft {

/// While it lives, the results of adapters on `sites` must not depend on a leaf that requires a gradient and is not
/// among `parameters`: it would be neither trained nor saved. This includes passes that recompute activations.
class ParameterWatch {
 public:
  ParameterWatch(const std::vector<Site*>& sites, const NamedTensors& parameters);
  ~ParameterWatch();
  ParameterWatch(const ParameterWatch&) = delete;
  ParameterWatch& operator=(const ParameterWatch&) = delete;
  /// The one for `site`; null if there is none.
  static const ParameterWatch* of(const Site& site);
  /// Descriptions of those among `leaves` that are not parameters, with commas; "" if all are.
  std::string unknown(const std::vector<Tensor>& leaves) const;

 private:
  std::unordered_set<const Site*> sites_;
  std::unordered_set<const void*> parameters_;
};

/// The part of the autograd graph that one call of an adapter's module adds.
class ModuleGraph {
 public:
  /// Does nothing if the site is not watched or no graph is made.
  explicit ModuleGraph(const Site& site);
  /// What the module got: its input, the results of inner layers.
  void add_input(const Tensor& tensor);
  /// What the module computed: its result, the inputs of inner layers.
  void add_result(const Tensor& tensor);
  /// Throws std::logic_error if the module used a leaf that is not a parameter.
  void check() const;

 private:
  const Site& site_;
  const ParameterWatch* watch_;
  std::vector<Edge> inputs_, results_;
};

/// Throws std::logic_error unless `result` of a layer on `site` for `x` has the shape and the dtype that the site's own
/// result has.
void check_layer_result(const Site& site, const Tensor& x, const Tensor& result);
/// Throws std::logic_error unless an inner layer on `site` can be given `input`, where the outer one was given `x`.
void check_layer_input(const Site& site, const Tensor& x, const Tensor& input);

/// tokens.rows(), prefix.keys_and_values() and prefix.gate(), checked in the same way. Throw PluginError.
Tensor checked_rows(const Embedding& site, const VirtualTokens& tokens);
KeysAndValues checked_keys_and_values(const Attention& site, const VirtualKeys& prefix);
Tensor checked_gate(const Attention& site, const VirtualKeys& prefix);

}  // namespace peft
