#pragma once

#include <string>

#include "peft/files/atomic_directory.h"
#include "peft/files/pretrained_model.h"
#include "pretrained/gguf/writer.h"

namespace peft {

/// The type named "f32", "f16", "bf16" or "q8_0". Throws ConfigError for another name.
StoredType gguf_export_type(const std::string& name);
/// The type of a tensor of that shape: f32 for vectors, f16 if a row is not a multiple of the block size, else
/// `wanted`.
StoredType gguf_type_for(StoredType wanted, const std::vector<int64_t>& shape);
/// The `general.*` pairs of a file. `kind` is "model" or "adapter".
GgufPairs gguf_general(const std::string& kind, const std::string& name);
/// `general.file_type`: llama.cpp's LLAMA_FTYPE.
uint32_t gguf_file_type(StoredType type);
/// The last component of a model's path, without the extension .gguf.
std::string model_name(const std::string& path);
/// Writes a Modelfile for Ollama. `from` is the model; `adapter` is a file or "".
void write_modelfile(const AtomicDirectory& draft, const PretrainedModel& checkpoint, const std::string& from,
                     const std::string& adapter);

}  // namespace peft
