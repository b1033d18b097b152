#pragma once
// Where the core calls what a plugin made.

#include <string>
#include <typeinfo>

namespace peft::detail {

/// The text of the exception being handled, printable.
std::string current_exception_text();

/// Rethrows the exception being handled if it says that memory is missing.
void rethrow_missing_memory();

/// Rethrows the exception being handled: a peft::Error, what says that memory is missing, and all that comes from a
/// class of the core, as it is; else as a PluginError with the file that the class of `type` is in.
[[noreturn]] void rethrow_from(const std::type_info& type, const char* what);

/// work(), which calls into `object`. What must not leave a plugin is told with its file and with `what` it did.
template <class Object, class Work>
decltype(auto) call_plugin(const Object& object, const char* what, Work&& work) {
  try {
    return work();
  } catch (...) {
    rethrow_from(typeid(object), what);
  }
}

/// What a plugin calls back into the core by; what leaves it on that way is not the plugin's.
class CoreCallback {
 public:
  template <class Work>
  auto operator()(Work&& work) {
    inside_ = false;
    auto result = work();
    inside_ = true;
    return result;
  }
  bool inside() const { return inside_; }

 private:
  bool inside_ = true;
};

/// As call_plugin(), where `object` in turn calls the core: work(CoreCallback&) does so by its argument.
template <class Object, class Work>
auto call_plugin_with_callback(const Object& object, const char* what, Work&& work) {
  CoreCallback outside;
  try {
    return work(outside);
  } catch (...) {
    if (!outside.inside()) throw;
    rethrow_from(typeid(object), what);
  }
}

}  // namespace peft::detail
