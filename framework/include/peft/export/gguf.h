#pragma once

#include <string>

#include "peft/base/export.h"
#include "peft/export/combine.h"
#include "peft/export/merge.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// What a GGUF file keeps weights in: "f32", "f16", "bf16" or "q8_0". Vectors and norms stay in f32; rows that Q8_0
/// cannot cut into blocks of 32 become f16: as llama.cpp's own converters do it.
struct GgufModelOptions {
  std::string model;    ///< Hugging Face folder, or .gguf file
  StringList adapters;  ///< folders; all are merged, in this order; may be empty
  std::string output;   ///< folder that does not exist yet
  bool any_base = false;
  std::string type = "f16";
};

/// Writes `model.gguf`, the model with its adapters folded in, for llama.cpp, and a `Modelfile` for Ollama. Each
/// merged weight is summed in fp32 and rounded once; the receipt tells what rounding left of the change. Throws as
/// merge(), and InputError for a tokenizer or a scaling that GGUF cannot express.
PEFT_API MergeReport export_gguf_model(const GgufModelOptions& options, Plugins& plugins);

struct GgufAdapterOptions {
  CombineOptions adapters;
  std::string output;  ///< folder that does not exist yet
  std::string type = "f32";
};

/// Writes `adapter.gguf`, one LoRA for llama.cpp's --lora, and a `Modelfile` for Ollama. llama.cpp scales every
/// update by alpha / r: where a module's true scale differs (use_rslora, rank_pattern, alpha_pattern), the difference
/// is folded into its B. Throws InputError for an adapter that is no low-rank update, naming the module. Returns
/// adapters that do not say which base they were trained on.
PEFT_API StringList export_gguf_adapter(const GgufAdapterOptions& options, Plugins& plugins);

}  // namespace peft
