#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// "1048576", "500MB", "1.5 GiB": a positive number of bytes; KB, MB, GB are powers of 1000, KiB, MiB, GiB of 1024.
/// Nothing for any other text.
PEFT_API std::optional<uint64_t> parse_bytes(const std::string& text);

}  // namespace peft
