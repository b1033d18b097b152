#include <torch/torch.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "files/gguf_from_hf.h"
#include "files/gguf_heads.h"
#include "files/gguf_names.h"
#include "files/gguf_rope.h"
#include "files/gguf_types.h"
#include "merge/adapted_base.h"
#include "merge/gguf_files.h"
#include "merge/merged_weights.h"
#include "peft/gguf.h"
#include "text/fields.h"
#include "text/gguf_tokens.h"

namespace peft {

namespace {

void append(GgufPairs& pairs, GgufPairs more) {
  for (auto& pair : more) pairs.push_back(std::move(pair));
}

/// All metadata, the tokenizer included.
GgufPairs metadata(const Checkpoint& checkpoint, const DecoderConfig& config, StoredType type) {
  GgufPairs pairs = gguf_general("model", model_name(checkpoint.path()));
  pairs.emplace_back("general.file_type", gguf_file_type(type));
  append(pairs, gguf_pairs_of(config));
  const auto tokenizer = text::parse_json(checkpoint.tokenizer_json(), checkpoint.path() + ": tokenizer.json");
  append(pairs, gguf_pairs_of_tokenizer(tokenizer, checkpoint.tokenizer_config(), checkpoint.config(),
                                        config.vocab_size, checkpoint.path()));
  return pairs;
}

/// A tensor's rows in the order in which llama.cpp wants them; `buffer` holds them where they had to be moved.
const void* in_stored_order(const void* data, const TensorForm& form, const DecoderConfig& config,
                            std::vector<std::byte>& buffer) {
  const int64_t heads = permuted_heads(form.name, config.num_attention_heads, config.num_key_value_heads);
  if (heads == 0) return data;
  const uint64_t bytes = gguf_bytes(form.type, form.shape);
  const int64_t rows = form.shape.front(), row_bytes = static_cast<int64_t>(bytes) / rows;
  buffer.resize(bytes);
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(buffer.data() + stored_row(row, rows / heads) * row_bytes,
                static_cast<const std::byte*>(data) + row * row_bytes, static_cast<std::size_t>(row_bytes));
  return buffer.data();
}

void write_weights(const std::string& path, const GgufPairs& pairs, MergedWeights& weights,
                   const DecoderConfig& config) {
  std::vector<TensorForm> forms;
  const std::vector<float> divisors = rope_divisors_of(config.rope, config.head_dim);
  if (!divisors.empty()) forms.push_back({gguf_rope_tensor, StoredType::f32, {static_cast<int64_t>(divisors.size())}});
  for (const TensorForm& form : weights.tensors()) forms.push_back({gguf_name_of_hf(form.name), form.type, form.shape});
  GgufWriter writer(path, pairs, std::move(forms));
  if (!divisors.empty()) writer.write(divisors.data());
  std::vector<std::byte> buffer;
  for (const TensorForm& form : weights.tensors())
    writer.write(in_stored_order(weights.data(form), form, config, buffer));
  writer.commit();
}

}  // namespace

MergeReceipt export_gguf_model(const GgufModelOptions& options, Plugins& plugins) {
  const StoredType type = gguf_export_type(options.type);
  DraftFolder draft(free_place(options.output));
  const AdaptedBase base = load_adapted_base(options.model, options.adapters, options.any_base, plugins);
  const DecoderConfig& config = base.model->config();
  MergedWeights weights(*base.checkpoint, *base.model,
                        [type](const StoredTensor& stored) { return gguf_type_for(type, stored.shape); });
  write_weights(draft.file("model.gguf"), metadata(*base.checkpoint, config, type), weights, config);
  write_modelfile(draft, *base.checkpoint, "./model.gguf", "");
  draft.publish();
  return {.modules = weights.modules(),
          .files = {"model.gguf"},
          .dtype = options.type,
          .unknown_bases = base.unknown_bases};
}

}  // namespace peft
