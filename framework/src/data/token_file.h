#pragma once

#include <optional>
#include <string>

#include "peft/data/dataset.h"

namespace peft::data {

/// Writes a data set to `path`, whole or not at all. `key` (32 characters) says what it was made of. Returns the bytes
/// written: 0 where they would be more than `limit` and nothing was. Throws ResourceError.
uint64_t write_token_file(const std::string& path, const std::string& key, const Dataset& set, uint64_t limit);

/// The examples and counts that such a file holds; none for a file that is absent, damaged or of another key.
std::optional<Dataset> read_token_file(const std::string& path, const std::string& key, std::size_t files);

}  // namespace peft::data
