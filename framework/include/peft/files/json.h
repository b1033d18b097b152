#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// Reads a regular file of at most `limit` bytes. Throws InputError for anything else.
PEFT_API std::string read_text(const std::string& path, std::size_t limit = std::size_t{256} << 20);

/// Parses strict JSON: UTF-8, without duplicate keys in an object, at most `max_depth` levels and 2^23 values. Throws
/// InputError with line and column; `name` is used as the file name in messages.
PEFT_API nlohmann::json parse_json(const std::string& text, const std::string& name, std::size_t max_depth = 100);
/// The same for a file of at most 64 MiB.
PEFT_API nlohmann::json read_json(const std::string& path);

/// Replaces a file atomically: writes a temporary file in the same folder, syncs it, renames it and syncs the folder.
/// Throws ResourceError and leaves an existing file unchanged.
PEFT_API void write_file(const std::string& path, const std::string& bytes);

}  // namespace peft
