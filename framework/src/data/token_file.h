#pragma once

#include <optional>
#include <string>

#include "peft/data/dataset.h"

namespace peft::data {

/// Writes a data set to `path` atomically. `key` (32 characters) identifies its sources. Returns the bytes written: 0,
/// with nothing written, if they would exceed `limit`. Throws ResourceError.
uint64_t write_token_file(const std::string& path, const std::string& key, const Dataset& set, uint64_t limit);

/// The examples and counts in such a file; nothing for a file that is missing, corrupt, has another key, or could have
/// been written by another user than root.
std::optional<Dataset> read_token_file(const std::string& path, const std::string& key, std::size_t files);

}  // namespace peft::data
