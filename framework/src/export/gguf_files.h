#pragma once

#include <string>

#include "peft/files/atomic_directory.h"
#include "peft/files/pretrained_model.h"
#include "pretrained/gguf/writer.h"

namespace peft {

/// "f32", "f16", "bf16", "q8_0". Throws ConfigError for another word.
StoredType gguf_export_type(const std::string& word);
/// What a tensor of that shape becomes in such a file: vectors stay in f32, a row that is no whole blocks becomes f16.
StoredType gguf_type_for(StoredType wanted, const std::vector<int64_t>& shape);
/// `general.*` of every file: "model" or "adapter", and its name.
GgufPairs gguf_general(const std::string& kind, const std::string& name);
/// `general.file_type`: llama.cpp's LLAMA_FTYPE.
uint32_t gguf_file_type(StoredType type);
/// Of a model's path: its last part, without an extension.
std::string model_name(const std::string& path);
/// Ollama's file beside the weights: `from`, what to start from; `adapter`: a file, or "".
void write_modelfile(const AtomicDirectory& draft, const PretrainedModel& checkpoint, const std::string& from,
                     const std::string& adapter);

}  // namespace peft
