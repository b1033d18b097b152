#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// Parses a positive size such as "1048576", "500MB" or "1.5 GiB" into bytes. KB, MB and GB are powers of 1000; KiB,
/// MiB and GiB are powers of 1024. Returns nullopt for any other text.
PEFT_API std::optional<uint64_t> parse_bytes(const std::string& text);

/// 1342177280 as "1.25 GiB", for people; MiB and KiB with one decimal.
PEFT_API std::string format_bytes(uint64_t bytes);

}  // namespace peft
