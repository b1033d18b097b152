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

/// Checks an adapter plugin on a small random model, in fp64: attaching leaves the outputs unchanged (unless
/// Adapter::is_identity_at_init is false), gradients match central differences, the fused path matches forward, the
/// outputs of an example depend neither on other examples nor on the key-value cache, merged weights give the same
/// outputs, saved files restore the adapter, disabling it restores the base's outputs, and base weights never change.
/// `options`: TOML of the [adapter] table without `name`. Throws what the plugin throws.
PEFT_API std::vector<CheckResult> selfcheck_adapter(Plugins& plugins, const std::string& name,
                                                    const std::string& options);

}  // namespace peft
