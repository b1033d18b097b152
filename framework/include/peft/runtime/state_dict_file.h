#pragma once

#include <map>
#include <memory>
#include <string>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

class SafetensorsFile;

/// Writes the tensors as a safetensors file, atomically.
PEFT_API void write_state(const std::string& path, const StateDict& state,
                          const std::map<std::string, std::string>& metadata);
/// Reads a safetensors file as tensors on the CPU. Throws InputError if it cannot be read.
PEFT_API StateDict read_state(const std::string& path);
/// The same for an open file.
PEFT_API StateDict read_state(const SafetensorsFile& file);

}  // namespace peft
