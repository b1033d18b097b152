#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// Parses a positive size such as "1048576", "500MB" or "1.5 GiB" into bytes. KB, MB and GB are powers of 1000; KiB,
/// MiB and GiB are powers of 1024. Returns nullopt for any other text.
PEFT_API std::optional<uint64_t> parse_bytes(const std::string& text);

}  // namespace peft
