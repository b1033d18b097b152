#pragma once

#include <string>

#include "peft/base/export.h"

namespace peft {

/// Writes `manifest.json` into a folder: size and SHA-256 of each file in it and its subfolders. Call it after all
/// other files are written: its presence marks the folder as complete.
PEFT_API void write_manifest(const std::string& folder);

/// Throws InputError if the manifest is missing, or if the files in the folder are not exactly those in the manifest,
/// with equal sizes and SHA-256.
PEFT_API void verify_manifest(const std::string& folder);

}  // namespace peft
