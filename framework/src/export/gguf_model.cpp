#include <torch/types.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "export/adapted_base.h"
#include "export/gguf_files.h"
#include "export/merged_weights.h"
#include "peft/export/gguf.h"
#include "pretrained/gguf/from_hf.h"
#include "pretrained/gguf/heads.h"
#include "pretrained/gguf/names.h"
#include "pretrained/gguf/rope.h"
#include "pretrained/gguf/tokens.h"
#include "text/tokenizer/tokenizer_json.h"

namespace peft {

namespace {

void append(GgufPairs& pairs, GgufPairs more) {
  for (auto& pair : more) pairs.push_back(std::move(pair));
}

/// All metadata, including the tokenizer.
GgufPairs metadata(const PretrainedModel& checkpoint, const DecoderConfig& config, StoredType type) {
  GgufPairs pairs = gguf_general("model", model_name(checkpoint.path()));
  pairs.emplace_back("general.file_type", gguf_file_type(type));
  append(pairs, gguf_pairs_of(config));
  const auto tokenizer =
      text::parse_tokenizer_json(checkpoint.tokenizer_json(), checkpoint.path() + ": tokenizer.json");
  append(pairs, gguf_pairs_of_tokenizer(tokenizer, checkpoint.tokenizer_config(), checkpoint.config(),
                                        config.vocab_size, checkpoint.path()));
  return pairs;
}

void write_weights(const std::string& path, const GgufPairs& pairs, MergedWeights& weights,
                   const DecoderConfig& config) {
  std::vector<GgufTensorInfo> infos;
  const std::vector<float> divisors = rope_divisors_of(config.rope, config.head_dim);
  if (!divisors.empty())
    infos.push_back({{gguf_rope_tensor, StoredType::f32, {static_cast<int64_t>(divisors.size())}}});
  for (const TensorInfo& tensor : weights.tensors())
    infos.push_back({{gguf_name_of_hf(tensor.name), tensor.type, tensor.shape},
                     permuted_heads(tensor.name, config.num_attention_heads, config.num_key_value_heads)});
  GgufWriter writer(path, pairs, std::move(infos));
  if (!divisors.empty()) writer.write(divisors.data());
  for (const TensorInfo& tensor : weights.tensors()) writer.write(weights.data(tensor));
  writer.commit();
}

/// "bfloat16" → "bf16".
std::string gguf_dtype(std::string dtype) { return dtype.erase(dtype.find("float") + 1, std::strlen("loat")); }

}  // namespace

MergeReport export_gguf_model(const GgufModelOptions& options, Plugins& plugins) {
  const StoredType type = gguf_export_type(options.type);
  AtomicDirectory draft(require_absent(options.output));
  const AdaptedBase base = load_adapted_base(options.from, plugins);
  const DecoderConfig& config = base.model->config();
  MergedWeights weights(*base.checkpoint, *base.model,
                        [type](const StoredTensor& stored) { return gguf_type_for(type, stored.shape); });
  write_weights(draft.file("model.gguf"), metadata(*base.checkpoint, config, type), weights, config);
  write_modelfile(draft, *base.checkpoint, "./model.gguf", "");
  draft.commit();
  std::vector<MergedModule> modules = weights.modules();
  for (MergedModule& module : modules)
    if (module.dtype.find("float") != std::string::npos) module.dtype = gguf_dtype(module.dtype);
  return {.modules = std::move(modules),
          .files = {"model.gguf"},
          .dtype = options.type,
          .dtypes = {},  // vectors are always f32
          .notes = base.notes};
}

}  // namespace peft
