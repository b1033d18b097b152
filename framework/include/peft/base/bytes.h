#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// "1048576", "500MB", "1.5 GiB": a positive number of bytes; KB, MB, GB are powers of 1000, KiB, MiB, GiB of 1024.
/// Nothing for any other text.
PEFT_API std::optional<uint64_t> parse_bytes(const std::string& text);

/// 1342177280 as "1.25 GiB", for people; MiB and KiB with one decimal.
PEFT_API std::string format_bytes(uint64_t bytes);

}  // namespace peft
