#pragma once

#include <string>

#include "peft/base/export.h"

namespace peft {

/// Writes `manifest.json` into a folder: size and SHA-256 of each file in it and in folders in it. The last to be
/// written.
PEFT_API void write_manifest(const std::string& folder);

/// Throws InputError where the manifest is missing, names a file that is not there, does not name one that is, or a
/// file's size or SHA-256 is another.
PEFT_API void verify_manifest(const std::string& folder);

}  // namespace peft
