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

namespace peft::detail {
namespace {

/// An exception of a static constructor cannot pass the dynamic loader: the process ends. It shall at least end with
/// the file's name and the exit code of plugins.
class NamedEnd {
 public:
  explicit NamedEnd(const std::string& file) : before_(std::set_terminate(end)) { file_ = &file; }
  ~NamedEnd() { std::set_terminate(before_); }
  NamedEnd(const NamedEnd&) = delete;
  NamedEnd& operator=(const NamedEnd&) = delete;

 private:
  [[noreturn]] static void end() {
    std::string text = "something that is no std::exception";
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
const std::string* NamedEnd::file_ = nullptr;

/// Never unloaded: objects, exceptions and autograd nodes of the plugin may live to the end of the process.
void keep(std::unique_ptr<boost::dll::shared_library> library) {
  static std::mutex mutex;
  static auto& kept = *new std::vector<std::unique_ptr<boost::dll::shared_library>>;
  const std::lock_guard lock(mutex);
  kept.push_back(std::move(library));
}

/// What the dynamic loader said, out of Boost's sentence around it.
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
  try {
    const NamedEnd named(file);
    library->load(file, rtld_now | rtld_local);
    info = &library->get<const PluginInfo>("peft_plugin_v1");
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    const std::string said = loader_message(file, error.what());
    const std::string told = printable(file, 4096) + ": cannot be loaded: " + printable(said, 1000);
    if (said.find(std::strerror(ENOMEM)) != std::string::npos) throw ResourceError(told);
    throw PluginError(told);
  }
  keep(std::move(library));
  return *info;
}

std::string folder_of_libpeft() {
  return std::filesystem::weakly_canonical(boost::dll::this_line_location()).parent_path().string();
}

}  // namespace peft::detail
