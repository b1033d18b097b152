#pragma once
// The list of plugin kinds. An entry makes a kind known to the registry, the loader, `describe`, `list`, CMake and
// tools/new-plugin, the last two of which read this file. For the rest see CONTRIBUTING.md.

/// X(interface, name in TOML and file names (a-z), plugin that an experiment without the table uses; "": none)
#define PEFT_PLUGIN_KINDS(X)              \
  X(Adapter, "adapter", "")               \
  X(Optimizer, "optimizer", "adamw")      \
  X(Scheduler, "scheduler", "linear")     \
  X(GradientClipping, "clipping", "norm") \
  X(Precision, "precision", "fp32")       \
  X(Objective, "objective", "sft")

namespace peft {

/// A kind of plugin by its interface: Kind<Optimizer>::name is "optimizer".
template <class Interface>
struct Kind;

#define PEFT_DEFINE_KIND(interface_, name_, default_)       \
  class interface_;                                         \
  template <>                                               \
  struct Kind<interface_> {                                 \
    using Interface = interface_;                           \
    static constexpr const char* name = name_;              \
    static constexpr const char* default_plugin = default_; \
  };
PEFT_PLUGIN_KINDS(PEFT_DEFINE_KIND)
#undef PEFT_DEFINE_KIND

/// Calls visit(Kind<Interface>()) for each kind, in the list's order.
template <class Visit>
void for_each_plugin_kind(Visit&& visit) {
#define PEFT_VISIT_KIND(interface_, name_, default_) visit(Kind<interface_>());
  PEFT_PLUGIN_KINDS(PEFT_VISIT_KIND)
#undef PEFT_VISIT_KIND
}

}  // namespace peft
