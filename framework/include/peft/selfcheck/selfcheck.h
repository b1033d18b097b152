#pragma once

#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// The result of one check of a plugin.
struct CheckResult {
  std::string name;
  bool passed = false;
  std::string detail;  ///< figures, or what went wrong
};

/// Checks that a plugin keeps the contract of its kind, on a small random model or on a few random tensors. `options`:
/// TOML of the kind's table without `name`. What the plugin does wrong is a result; throws ConfigError for an unknown
/// kind, and what the plugin throws when it is made.
///
/// An adapter: attaching leaves the outputs unchanged (unless Adapter::is_identity_at_init is false), gradients match
/// central differences, whatever wants a gradient is a registered parameter, the fused path matches forward, recomputed
/// activations give the same gradients in training mode, an example depends neither on others nor on the key-value
/// cache, it also runs in bf16, merged weights give the same outputs, saved files and a checkpoint restore it,
/// disabling it restores the base's outputs, and base weights never change. An optimizer, a scheduler, clipping, a
/// precision, an objective: what its header promises, and that its state restores it bit for bit.
PEFT_API std::vector<CheckResult> selfcheck(Plugins& plugins, const std::string& kind, const std::string& name,
                                            const std::string& options);

}  // namespace peft
