#pragma once

#include <string>

#include "peft/plugin/plugin_info.h"

namespace peft::detail {

/// Loads a library for the rest of the process and returns its `peft_plugin_v1`. Throws PluginError.
const PluginInfo& load_library(const std::string& file);

/// The folder libpeft.so was loaded from.
std::string folder_of_libpeft();

}  // namespace peft::detail
