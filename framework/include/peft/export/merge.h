#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/plugin/plugins.h"
#include "peft/runtime/tensors.h"

namespace peft {

struct MergeOptions {
  std::string model;    ///< Hugging Face folder, or .gguf file
  StringList adapters;  ///< folders; all are merged, in this order
  std::string output;   ///< folder that does not exist yet
  bool any_base = false;
  std::string dtype;  ///< of the merged weights: "float32", "bfloat16", "float16"; "": as stored, a GGUF's fp32
  uint64_t max_shard_size = 5'000'000'000;  ///< bytes of one safetensors file
};

/// What rounding the merged weight of one module to its dtype has left of the adapter's change.
struct MergedModule {
  std::string path;
  int64_t weights = 0;
  int64_t unchanged = 0;  ///< weights that are the base's after rounding
  double error = 0;       ///< ‖rounded − exact‖ / ‖exact − base‖
};

struct MergeReport {
  std::vector<MergedModule> modules;
  std::vector<std::string> files;  ///< files of weights written
  std::string dtype;               ///< of most merged weights
  StringList unknown_bases;        ///< adapters that do not say which base they were trained on
};

/// Writes the model with its adapters folded in as a Hugging Face folder: weights, config, tokenizer, chat template,
/// generation config, merge_receipt.json. Each weight is summed in fp32 and rounded once; one module at a time is in
/// memory; what no adapter touches is copied bit for bit. The folder appears whole or not at all. Throws InputError for
/// an adapter that no weights express, naming the module; ConfigError for an output that is there.
PEFT_API MergeReport merge(const MergeOptions& options, Plugins& plugins);

}  // namespace peft
