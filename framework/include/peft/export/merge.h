#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/export/combine.h"
#include "peft/plugin/plugins.h"
#include "peft/runtime/tensors.h"

namespace peft {

struct MergeOptions {
  AdaptedModelOptions from;
  std::string output;  ///< folder that does not exist yet
  std::string dtype;   ///< of the merged weights: "float32", "bfloat16", "float16"; "": as stored (a GGUF file: fp32)
  uint64_t max_shard_size = 5'000'000'000;  ///< bytes of one safetensors file
};

/// How much of an adapter's change of one module remains after the merged weight is rounded to its dtype.
struct MergedModule {
  std::string path;
  std::string dtype;  ///< in which the merged weight is written
  int64_t weights = 0;
  int64_t unchanged = 0;  ///< weights that equal the base's after rounding
  double error = 0;       ///< ‖rounded − exact‖ / ‖exact − base‖
};

struct MergeReport {
  std::vector<MergedModule> modules;
  std::vector<std::string> files;         ///< names of the written weight files
  std::string dtype;                      ///< of most of the written weights, as the written config names it
  std::map<std::string, int64_t> dtypes;  ///< tensors by dtype
  ReadingNotes notes;
};

/// Merges adapters into a model and writes it as a Hugging Face folder: weights, config, tokenizer, chat template,
/// generation config, merge_receipt.json. Merged weights are computed in fp32 and rounded once, one module at a time;
/// weights without an adapter are copied bit-identically. The folder appears complete or not at all. Throws InputError,
/// with the module, for an adapter that cannot be merged, ConfigError if the output exists.
PEFT_API MergeReport merge(const MergeOptions& options, Plugins& plugins);

}  // namespace peft
