#pragma once

#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// One promise of an adapter plugin, put to the test.
struct CheckResult {
  std::string promise;
  bool kept = false;
  std::string detail;  ///< figures, or what went wrong
};

/// Tries an adapter plugin on a small random model, in fp64: that the model is unchanged at the start (unless
/// Adapter::is_identity_at_init says otherwise), every gradient is that of central differences, fused layers compute
/// what their forward does, an example gives the same beside another one and token by token with a cache, folding gives
/// the same outputs, files come back the same, a disabled adapter leaves the base, and the base stays bit-equal.
/// `options`: TOML of the [adapter] table without `name`. Throws what the plugin throws.
PEFT_API std::vector<CheckResult> selfcheck_adapter(Plugins& plugins, const std::string& name,
                                                    const std::string& options);

}  // namespace peft
