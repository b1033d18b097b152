# Flags that stop a program which overruns a buffer or has its function pointers overwritten, instead of letting it continue.
# Release only: the sanitizer builds use RelWithDebInfo, and _FORTIFY_SOURCE hides errors from AddressSanitizer.
option(PEFT_HARDENING "Release builds: stack protector, _FORTIFY_SOURCE, libstdc++ assertions, full RELRO" ON)
if(PEFT_HARDENING)
  add_compile_options($<$<CONFIG:Release>:-fstack-protector-strong>)
  add_compile_definitions($<$<CONFIG:Release>:_FORTIFY_SOURCE=2> $<$<CONFIG:Release>:_GLIBCXX_ASSERTIONS>)
  add_link_options($<$<CONFIG:Release>:LINKER:-z,relro,-z,now,-z,noexecstack>)
  include(CheckPIESupported)
  check_pie_supported(LANGUAGES CXX)  # without it, CMake leaves position-independent executables to the compiler's default
endif()
