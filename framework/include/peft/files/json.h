#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// The bytes of a regular file of at most `limit` bytes. Throws InputError that says what is there instead.
PEFT_API std::string read_text(const std::string& path, std::size_t limit = std::size_t{256} << 20);

/// JSON without doubt: UTF-8, no key twice in an object, nested at most 100 deep, at most 2^23 values. `name` stands in
/// messages for the file. Throws InputError with line and column.
PEFT_API nlohmann::json parse_json(const std::string& text, const std::string& name);
/// The same of a file of at most 64 MiB.
PEFT_API nlohmann::json read_json(const std::string& path);

/// Writes the whole file or nothing: under another name in the same folder, synced, renamed, the folder synced.
/// Throws ResourceError; what was there before is then still there.
PEFT_API void write_file(const std::string& path, const std::string& bytes);

}  // namespace peft
