#include "peft/plugin/active_plugin.h"

#include <link.h>
#include <unwind.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "peft/base/error.h"
#include "plugin/active_plugin.h"

namespace peft {

namespace detail {

/// A file that was or is being loaded; never destroyed. A signal handler can read the list at any time.
struct PluginFile {
  explicit PluginFile(const std::string& path) : shown(printable_path(path)) {}
  bool contains(const void* address) const {
    const auto number = reinterpret_cast<std::uintptr_t>(address);
    return address == this || (number >= begin && number < end);
  }
  const std::string shown;
  std::atomic<std::uintptr_t> begin = 0, end = 0;
  const PluginFile* next = nullptr;
};

namespace {

std::atomic<const PluginFile*> first_file = nullptr;

PluginFile& add_file(const std::string& path) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& file = *new PluginFile(path);
  file.next = first_file;
  first_file = &file;
  return file;
}

const PluginFile* file_at(const void* address) {
  for (const PluginFile* file = first_file; address != nullptr && file != nullptr; file = file->next)
    if (file->contains(address)) return file;
  return nullptr;
}

struct Range {
  std::uintptr_t address, begin = 0, end = 0;
};

/// Stops at the library that contains range.address.
int find_range(dl_phdr_info* library, std::size_t, void* data) {
  Range& range = *static_cast<Range*>(data);
  Range found{range.address, UINTPTR_MAX, 0};
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& segment = library->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    found.begin = std::min<std::uintptr_t>(found.begin, library->dlpi_addr + segment.p_vaddr);
    found.end = std::max<std::uintptr_t>(found.end, library->dlpi_addr + segment.p_vaddr + segment.p_memsz);
  }
  if (range.address < found.begin || range.address >= found.end) return 0;
  range = found;
  return 1;
}

struct Walk {
  const void* end;  ///< frames beyond it are those of a plugin that has called the core back
  const PluginFile* found = nullptr;
};

_Unwind_Reason_Code visit_frame(_Unwind_Context* context, void* data) {
  Walk& walk = *static_cast<Walk*>(data);
  const auto frame = static_cast<std::uintptr_t>(_Unwind_GetCFA(context));
  if (walk.end != nullptr && frame > reinterpret_cast<std::uintptr_t>(walk.end)) return _URC_END_OF_STACK;
  int is_before = 0;
  std::uintptr_t address = _Unwind_GetIPInfo(context, &is_before);
  if (is_before == 0) --address;  // of the call, not of what follows it
  walk.found = file_at(reinterpret_cast<const void*>(address));
  return walk.found == nullptr ? _URC_NO_REASON : _URC_END_OF_STACK;
}

constinit thread_local ActiveState state;
/// Of the thread that entered or left a call last: what its worker threads do is done for it.
std::atomic<const void*> last_address = nullptr;

void enter(const ActiveState& now) {
  state = now;
  last_address.store(now.address, std::memory_order_relaxed);
}

}  // namespace

ActivePlugin::ActivePlugin(const void* address) noexcept : ActivePlugin(ActiveState{address, state.core_callback}) {}
ActivePlugin::ActivePlugin(ActiveState now) noexcept : before_(state) { enter(now); }
ActivePlugin::~ActivePlugin() { enter(before_); }

LoadingPlugin::LoadingPlugin(const std::string& file) : file_(add_file(file)), active_(&file_) {}

void LoadingPlugin::loaded(const void* address) {
  Range range{reinterpret_cast<std::uintptr_t>(address)};
  if (::dl_iterate_phdr(find_range, &range) == 0) return;
  file_.end = range.end;
  file_.begin = range.begin;
}

}  // namespace detail

const char* active_plugin() noexcept {
  using namespace detail;
  Walk walk{state.core_callback};
  _Unwind_Backtrace(visit_frame, &walk);
  if (walk.found == nullptr) walk.found = file_at(state.address);
  if (walk.found == nullptr && state.core_callback == nullptr) walk.found = file_at(last_address);
  return walk.found == nullptr ? nullptr : walk.found->shown.c_str();
}

}  // namespace peft
