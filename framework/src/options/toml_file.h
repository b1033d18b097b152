#pragma once

#include <memory>
#include <string>
#include <utility>

#include "options/value.h"

namespace peft::detail {

/// The tables of a TOML file, with `order` for its messages. Throws ConfigError if the file cannot be read, is larger
/// than 16 MiB or is not TOML.
std::pair<std::shared_ptr<const Source>, Entries> read_toml_file(const std::string& path, int order = 0);

}  // namespace peft::detail
