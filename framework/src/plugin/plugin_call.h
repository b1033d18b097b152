#pragma once
// Guards the core's calls into a plugin's objects. The public, non-virtual methods of plugin interfaces use it; the
// protected virtual ones that plugins override are called nowhere else.

#include <stdexcept>
#include <string>
#include <typeinfo>

#include "plugin/active_plugin.h"

namespace peft::detail {

/// The text of the exception being handled, printable.
std::string current_exception_text();

/// Rethrows the exception being handled if it reports missing memory.
void rethrow_missing_memory();

/// Rethrows the exception being handled. A peft::Error, missing memory, and exceptions where `type` is a class of the
/// core pass unchanged; any other becomes a PluginError "<file of type>: <what> failed: <text>".
[[noreturn]] void rethrow_from(const std::type_info& type, const char* what);

/// Returns work(), which calls into `object`. Exceptions leave as rethrow_from() says; `what` names the call.
template <class Object, class Work>
decltype(auto) call_plugin(const Object& object, const char* what, Work&& work) {
  const ActivePlugin active(&typeid(object));
  try {
    return work();
  } catch (...) {
    rethrow_from(typeid(object), what);
  }
}

/// Throws `text`, a mistake in what `object` did in the call `what`, as rethrow_from() does.
template <class Object>
[[noreturn]] void blame(const Object& object, const char* what, const std::string& text) {
  try {
    throw std::logic_error(text);
  } catch (...) {
    rethrow_from(typeid(object), what);
  }
}

/// Runs the core's code that a plugin calls back, so that its exceptions are not attributed to the plugin.
class CoreCallback {
 public:
  template <class Work>
  auto operator()(Work&& work) {
    const ActiveCore active;
    in_plugin_ = false;
    auto result = work();
    in_plugin_ = true;
    return result;
  }
  bool in_plugin() const { return in_plugin_; }

 private:
  bool in_plugin_ = true;
};

/// As call_plugin(), for an `object` that calls the core back: work(CoreCallback&) passes those calls through its
/// argument.
template <class Object, class Work>
auto call_plugin_with_callback(const Object& object, const char* what, Work&& work) {
  const ActivePlugin active(&typeid(object));
  CoreCallback core;
  try {
    return work(core);
  } catch (...) {
    if (!core.in_plugin()) throw;
    rethrow_from(typeid(object), what);
  }
}

}  // namespace peft::detail
