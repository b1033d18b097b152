// The executable peft-run: sets what OpenMP reads when it is loaded, then loads the program itself, libpeft_cli.
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace {

using ExitHook = void (*)(const void* caller);
ExitHook on_immediate_exit = nullptr;  // set by libpeft_cli

/// By default, OpenMP's threads spin while they wait for one another. As soon as something else needs a CPU, they take
/// it from the very thread that they wait for.
void wait_passively() {
  if (std::getenv("GOMP_SPINCOUNT") == nullptr) ::setenv("OMP_WAIT_POLICY", "passive", /*replace=*/0);
}

[[noreturn]] void exit_immediately(int code, const void* caller) {
  if (on_immediate_exit != nullptr) on_immediate_exit(caller);
  for (;;) ::syscall(SYS_exit_group, code);
}

}  // namespace

// An executable's own functions take precedence over those of the C library.
extern "C" {
[[gnu::visibility("default")]] void _exit(int code) { exit_immediately(code, __builtin_return_address(0)); }
[[gnu::visibility("default")]] void _Exit(int code) noexcept { exit_immediately(code, __builtin_return_address(0)); }
}

int main(int argc, char** argv) {
  wait_passively();
  // Global, as if it were linked: plugins find its libraries.
  void* library = ::dlopen("libpeft_cli.so", RTLD_LAZY | RTLD_GLOBAL);
  void* run = library == nullptr ? nullptr : ::dlsym(library, "peft_cli_main");
  if (run != nullptr) return reinterpret_cast<int (*)(int, char**, ExitHook*)>(run)(argc, argv, &on_immediate_exit);
  std::fprintf(stderr, "peft-run: %s\n", ::dlerror());
  return 1;
}
