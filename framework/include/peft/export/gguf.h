#pragma once

#include <string>

#include "peft/base/export.h"
#include "peft/export/combine.h"
#include "peft/export/merge.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// Options of a GGUF file. The type of its weights is "f32", "f16", "bf16" or "q8_0". As in llama.cpp's converters,
/// vectors and norms are f32, and rows that are not a multiple of Q8_0's block size, 32, are f16.
struct GgufModelOptions {
  AdaptedModelOptions from;  ///< may have no adapters
  std::string output;        ///< folder that does not exist yet
  std::string type = "f16";
};

/// Writes `model.gguf`, the model with merged adapters, for llama.cpp, and a `Modelfile` for Ollama. Merged weights are
/// computed in fp32 and rounded once; the report contains the rounding error. Throws as merge() does, and InputError
/// for a tokenizer or RoPE scaling that GGUF cannot represent.
PEFT_API MergeReport export_gguf_model(const GgufModelOptions& options, Plugins& plugins);

struct GgufAdapterOptions {
  CombineOptions adapters;
  std::string output;  ///< folder that does not exist yet
  std::string type = "f32";
};

/// Writes `adapter.gguf`, a LoRA for llama.cpp's --lora, and a `Modelfile` for Ollama. llama.cpp scales all updates by
/// alpha / r. If the scale of a module differs (use_rslora, rank_pattern, alpha_pattern), B is multiplied by the ratio.
/// Throws InputError, with the module, for an adapter that is not a low-rank update, and for an alpha that is not
/// finite in fp32.
PEFT_API ReadingNotes export_gguf_adapter(const GgufAdapterOptions& options, Plugins& plugins);

}  // namespace peft
