#pragma once

#include <string>

#include "peft/adapters/adapter.h"
#include "peft/base/export.h"

namespace peft {

/// Writes `adapter_state.safetensors` next to the files of save_adapter(): what a resumed run needs that is not in
/// them, or that they store in another form than the trainable parameters. Writes no file if there is nothing.
PEFT_API void save_adapter_state(const std::string& folder, const Adapter& adapter, const Model& model);
/// Bytes of the tensors that save_adapter() and save_adapter_state() write.
PEFT_API uint64_t checkpoint_bytes(const Adapter& adapter, const Model& model);
/// Attaches a new adapter in the state, bit-identically, in which save_adapter() and save_adapter_state() wrote the
/// folder. Throws InputError if the folder holds another adapter's tensors, or its fingerprint is another base's.
PEFT_API void resume_adapter(const std::string& folder, Adapter& adapter, Model& model, torch::Dtype dtype);

}  // namespace peft
