#pragma once

#include "peft/base/export.h"

namespace peft {

/// The file of the plugin whose code the calling thread runs, printable; nullptr if it runs none: the innermost plugin
/// on the thread's stack, else the one that the core has called. For handlers of crashes, std::set_terminate and
/// std::atexit, so that a program can name the plugin that ends the process.
PEFT_API const char* active_plugin() noexcept;

}  // namespace peft
