#include "plugin/plugin_call.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <exception>
#include <new>
#include <system_error>

#include "peft/base/error.h"

namespace peft::detail {

namespace {

/// The library that an address is in, or "".
std::string file_of(const void* address) {
  Dl_info info{};
  return ::dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

}  // namespace

std::string current_exception_text() {
  constexpr std::size_t max_length = 1000;
  try {
    throw;
  } catch (const c10::Error& error) {
    return printable(error.what_without_backtrace(), max_length);
  } catch (const std::exception& error) {
    return printable(error.what(), max_length);
  } catch (...) {
    return "something that is not a std::exception";
  }
}

void rethrow_missing_memory() {
  try {
    throw;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::system_error& error) {  // as of threads that cannot be made
    if (error.code() == std::errc::resource_unavailable_try_again || error.code() == std::errc::not_enough_memory)
      throw;
  } catch (...) {
  }
}

void rethrow_from(const std::type_info& type, const char* what) {
  rethrow_missing_memory();
  const std::string file = file_of(&type);
  try {
    throw;
  } catch (const Error&) {
    throw;
  } catch (...) {
    if (file.empty() || file == file_of(reinterpret_cast<const void*>(&current_exception_text))) throw;
    throw PluginError(printable_path(file) + ": " + what + " failed: " + current_exception_text());
  }
}

}  // namespace peft::detail
