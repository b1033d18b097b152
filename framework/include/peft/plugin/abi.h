#pragma once

#include <torch/version.h>

#include <cstddef>  // the standard library's own macros

#define PEFT_STRINGIFY_(x) #x
#define PEFT_STRINGIFY(x) PEFT_STRINGIFY_(x)

/// Incremented with every incompatible change of a header that plugins include.
#define PEFT_ABI_NUMBER 4

#if defined(_GLIBCXX_DEBUG)
#define PEFT_ABI_DEBUG ", _GLIBCXX_DEBUG"
#else
#define PEFT_ABI_DEBUG ""
#endif

#if defined(__SANITIZE_ADDRESS__)
#define PEFT_ABI_SANITIZER ", address sanitizer"
#elif defined(__SANITIZE_THREAD__)
#define PEFT_ABI_SANITIZER ", thread sanitizer"
#else
#define PEFT_ABI_SANITIZER ""
#endif

/// Everything that must be equal in the library and a plugin, which exchange C++ and libtorch objects.
#define PEFT_ABI                                                                                         \
  "peft ABI " PEFT_STRINGIFY(                                                                            \
      PEFT_ABI_NUMBER) ", libtorch " TORCH_VERSION                                                       \
                       ", C++ " PEFT_STRINGIFY(__cplusplus) ", compiler ABI " PEFT_STRINGIFY(            \
                           __GXX_ABI_VERSION) ", new string ABI " PEFT_STRINGIFY(_GLIBCXX_USE_CXX11_ABI) \
                           PEFT_ABI_DEBUG PEFT_ABI_SANITIZER
