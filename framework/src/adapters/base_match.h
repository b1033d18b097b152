#pragma once

#include <string>

#include "peft/adapters/hf_files.h"
#include "peft/files/safetensors.h"
#include "peft/models/model.h"

namespace peft {

/// Key of the base's fingerprint in the metadata of `adapter_model.safetensors`.
constexpr const char* kFingerprint = "base_fingerprint";

/// Compares the file's fingerprint with that of the model's base. Throws InputError if they differ, unless `any_base`.
BaseMatch check_base(const SafetensorsFile& file, const Model& model, bool any_base);

/// Tensors of the frozen base that `file` may repeat, by key: those that the adapter's format names, and embedding and
/// head under every key at which HF PEFT saves them. `adapter_tensors`: what the format expects of the adapter itself.
StateDict repeated_base_tensors(const Adapter& adapter, const Model& model, const StateDict& adapter_tensors,
                                const StateDict& file);
/// A line for each tensor of `base` that `file` holds with another shape or other values.
std::string describe_base_mismatch(const StateDict& base, const StateDict& file);
/// `file` without the keys of `base`.
StateDict without_base_tensors(StateDict file, const StateDict& base);

}  // namespace peft
