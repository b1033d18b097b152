// The only user of Boost.DLL.
#define BOOST_DLL_USE_STD_FS
#include "plugin/library.h"

#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "peft/base/error.h"
#include "plugin/active_plugin.h"

namespace peft::detail {
namespace {

/// An exception of a static constructor cannot pass the dynamic loader and terminates the process. This reports the
/// file first and exits with the code for plugins.
class NamedTermination {
 public:
  explicit NamedTermination(const std::string& file) : before_(std::set_terminate(end)) { file_ = &file; }
  ~NamedTermination() { std::set_terminate(before_); }
  NamedTermination(const NamedTermination&) = delete;
  NamedTermination& operator=(const NamedTermination&) = delete;

 private:
  [[noreturn]] static void end() {
    std::string text = "something that is not a std::exception";
    try {
      if (std::current_exception()) throw;
    } catch (const std::exception& error) {
      text = error.what();
    } catch (...) {
    }
    std::fprintf(stderr, "%s: a static constructor threw: %s\n", printable(*file_).c_str(),
                 printable(text, 1000).c_str());
    std::_Exit(static_cast<int>(ErrorKind::plugin));
  }
  static const std::string* file_;
  std::terminate_handler before_;
};
const std::string* NamedTermination::file_ = nullptr;

/// Never unloads: objects, exceptions and autograd nodes of the plugin may live until the process ends.
void retain(std::unique_ptr<boost::dll::shared_library> library) {
  static std::mutex mutex;
  static auto& libraries = *new std::vector<std::unique_ptr<boost::dll::shared_library>>;
  const std::lock_guard lock(mutex);
  libraries.push_back(std::move(library));
}

/// The dynamic loader's message, extracted from Boost's.
std::string loader_message(const std::string& file, const std::string& sentence) {
  constexpr std::string_view before = "dlerror system message: ";
  const std::size_t begin = sentence.find(before), end = sentence.rfind("): ");
  if (begin == std::string::npos || end == std::string::npos || end < begin + before.size()) return sentence;
  std::string said = sentence.substr(begin + before.size(), end - begin - before.size());
  if (said.starts_with(file + ": ")) said.erase(0, file.size() + 2);
  return said;
}

}  // namespace

const PluginInfo& load_library(const std::string& file) {
  using boost::dll::load_mode::rtld_local;
  using boost::dll::load_mode::rtld_now;
  auto library = std::make_unique<boost::dll::shared_library>();
  const PluginInfo* info = nullptr;
  LoadingPlugin loading(file);
  try {
    const NamedTermination named(file);
    library->load(file, rtld_now | rtld_local);
    info = &library->get<const PluginInfo>("peft_plugin_v1");
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    const std::string said = loader_message(file, error.what());
    const std::string message = printable_path(file) + ": cannot be loaded: " + printable(said, 1000);
    if (said.find(std::strerror(ENOMEM)) != std::string::npos) throw ResourceError(message);
    throw PluginError(message);
  }
  loading.loaded(info);
  retain(std::move(library));
  return *info;
}

std::string folder_of_libpeft() {
  return std::filesystem::weakly_canonical(boost::dll::this_line_location()).parent_path().string();
}

}  // namespace peft::detail
