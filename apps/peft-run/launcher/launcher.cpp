// The executable peft-run: sets what OpenMP reads when it is loaded, then loads the program itself, libpeft_cli.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace {

/// By default, OpenMP's threads spin while they wait for one another. As soon as something else needs a CPU, they take
/// it from the very thread that they wait for.
void wait_passively() {
  if (std::getenv("GOMP_SPINCOUNT") == nullptr) ::setenv("OMP_WAIT_POLICY", "passive", /*replace=*/0);
}

}  // namespace

int main(int argc, char** argv) {
  wait_passively();
  // Global, as if it were linked: plugins find its libraries.
  void* library = ::dlopen("libpeft_cli.so", RTLD_LAZY | RTLD_GLOBAL);
  void* run = library == nullptr ? nullptr : ::dlsym(library, "peft_cli_main");
  if (run != nullptr) return reinterpret_cast<int (*)(int, char**)>(run)(argc, argv);
  std::fprintf(stderr, "peft-run: %s\n", ::dlerror());
  return 1;
}
