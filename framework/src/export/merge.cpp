#include "peft/export/merge.h"

#include <torch/types.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "export/adapted_base.h"
#include "export/merged_weights.h"
#include "export/stored_values.h"
#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"
#include "peft/files/json.h"
#include "peft/pretrained/vocabulary_overlay.h"
#include "peft/text/text.h"
#include "runtime/stored_types.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Splits the tensors into shards of at most `max_size` bytes. A larger tensor has its own shard.
std::vector<std::vector<TensorInfo>> shards_of(const std::vector<TensorInfo>& tensors, uint64_t max_size) {
  std::vector<std::vector<TensorInfo>> shards;
  uint64_t size = 0;
  for (const TensorInfo& tensor : tensors) {
    if (shards.empty() || size + tensor.bytes() > max_size) {
      shards.emplace_back();
      size = 0;
    }
    shards.back().push_back(tensor);
    size += tensor.bytes();
  }
  return shards;
}

std::string shard_name(std::size_t shard, std::size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
  return name;
}

std::vector<std::string> write_weights(MergedWeights& weights, const AtomicDirectory& draft, uint64_t max_size) {
  const auto shards = shards_of(weights.tensors(), max_size);
  json map = json::object();
  uint64_t total = 0;
  std::vector<std::string> files;
  for (std::size_t shard = 0; shard < shards.size(); ++shard) {
    files.push_back(shard_name(shard, shards.size()));
    SafetensorsWriter writer(draft.file(files.back()), shards[shard], {{"format", "pt"}});
    for (const TensorInfo& tensor : writer.tensors()) {
      writer.write(weights.data(tensor));
      map[tensor.name] = files.back();
      total += tensor.bytes();
    }
    writer.commit();
  }
  if (files.size() > 1)
    write_file(draft.file("model.safetensors.index.json"),
               json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n");
  return files;
}

void write_config(const AdaptedBase& base, const MergedWeights& weights, const std::string& dtype,
                  const AtomicDirectory& draft) {
  json config = base.checkpoint->config();
  if (base.model->replicated()) {
    config["num_hidden_layers"] = base.model->config().num_hidden_layers;
    config.erase("layer_types");  // one for each of the old layers; all are the default
  }
  // transformers v5 prefers `dtype`, v4 knows `torch_dtype` only: each that is there must be true.
  if (config.contains("torch_dtype")) config["torch_dtype"] = dtype;
  if (config.contains("dtype") || !config.contains("torch_dtype")) config["dtype"] = dtype;
  if (weights.unties()) config["tie_word_embeddings"] = false;
  write_file(draft.file("config.json"), config.dump(2) + "\n");
}

void write_text(const PretrainedModel& checkpoint, const AtomicDirectory& draft) {
  write_tokenizer(checkpoint, draft.path());
  const char* name = "generation_config.json";
  const fs::path source = fs::path(checkpoint.path()) / name;
  if (checkpoint.added() != nullptr && checkpoint.added()->own_config) {  // which can change the EOS token
    json generation = checkpoint.generation_config();
    if (const auto ids = load_text(checkpoint).eos_ids; !ids.empty()) generation["eos_token_id"] = ids;
    write_file(draft.file(name), generation.dump(2) + "\n");
  } else if (fs::is_directory(checkpoint.path())) {
    if (fs::exists(source)) write_file(draft.file(name), read_text(source.string()));
  } else if (!checkpoint.generation_config().empty()) {
    write_file(draft.file(name), checkpoint.generation_config().dump(2) + "\n");
  }
}

void write_receipt(const MergeReport& receipt, const MergeOptions& options, const AtomicDirectory& draft) {
  json modules = json::object();
  for (const MergedModule& module : receipt.modules)
    modules[module.path] = {{"dtype", module.dtype},
                            {"weights", module.weights},
                            {"unchanged", module.unchanged},
                            {"relative_error", module.error}};
  const json all = {{"base", options.from.model},
                    {"adapters", options.from.adapters},
                    {"dtype", receipt.dtype},
                    {"dtypes", receipt.dtypes},
                    {"modules", modules}};
  write_file(draft.file("merge_receipt.json"), all.dump(2) + "\n");
}

}  // namespace

MergeReport merge(const MergeOptions& options, Plugins& plugins) {
  auto wanted = named_type(options.dtype);
  if (!wanted && !options.dtype.empty())
    throw ConfigError("unsupported dtype '" + printable(options.dtype) + "'; use float32, bfloat16 or float16");
  AtomicDirectory draft(require_absent(options.output));
  const AdaptedBase base = load_adapted_base(options.from, plugins);
  const PretrainedModel& checkpoint = *base.checkpoint;
  if (!wanted && !fs::is_directory(options.from.model))
    wanted = torch::kFloat;  // a GGUF file has tensors of several types

  MergedWeights weights(checkpoint, *base.model,
                        [wanted](const StoredTensor& stored) { return wanted ? stored_type(*wanted) : stored.type; });
  MergeReport receipt;
  receipt.notes = base.notes;
  receipt.dtype = dtype_name(main_type(weights.tensors()));
  receipt.dtypes = weights.dtypes();
  receipt.files = write_weights(weights, draft, options.max_shard_size);
  receipt.modules = weights.modules();
  write_config(base, weights, receipt.dtype, draft);
  write_text(checkpoint, draft);
  write_receipt(receipt, options, draft);
  draft.commit();
  return receipt;
}

}  // namespace peft
