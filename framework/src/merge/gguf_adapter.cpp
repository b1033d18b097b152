#include <torch/torch.h>

#include <filesystem>

#include "files/gguf_heads.h"
#include "files/gguf_names.h"
#include "merge/combine.h"
#include "merge/gguf_files.h"
#include "merge/stored_values.h"
#include "peft/error.h"
#include "peft/gguf.h"

namespace peft {

namespace {

struct NamedUpdate {
  std::string name;  ///< the weight's, in GGUF
  Tensor a, b;       ///< as llama.cpp multiplies them
};

/// B's rows as llama.cpp orders a head's.
Tensor in_stored_order(const Tensor& B, int64_t heads) {
  if (heads == 0) return B;
  Tensor out = torch::empty_like(B);
  for (int64_t row = 0; row < B.size(0); ++row) out[stored_row(row, B.size(0) / heads)].copy_(B[row]);
  return out;
}

NamedUpdate named(const SiteUpdate& given, const Model& model, double alpha) {
  const auto& [site, update] = given;
  if (site == &model.head() && model.config().tie_word_embeddings)
    throw InputError("'" + site->path() +
                     "' shares the embedding's weight, which llama.cpp cannot adapt by itself; "
                     "'peft-run export --as gguf' merges it");
  const std::string weight = site->path() + ".weight";
  // llama.cpp multiplies by alpha / r.
  const double rest = update.scale * static_cast<double>(update.A.size(0)) / alpha;
  const Tensor B = rest == 1 ? update.B : update.B * rest;
  const int64_t heads = permuted_heads(weight, model.config().num_attention_heads, model.config().num_key_value_heads);
  // Of an embedding llama.cpp takes rows of a.
  const bool rows = site == &model.embedding();
  return {gguf_name_of_hf(weight), rows ? update.A.t().contiguous() : update.A, in_stored_order(B, heads)};
}

void write_updates(const std::string& path, const GgufPairs& pairs, const std::vector<NamedUpdate>& updates,
                   StoredType type) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const NamedUpdate& update : updates) {
    tensors.emplace_back(update.name + ".lora_a", update.a);
    tensors.emplace_back(update.name + ".lora_b", update.b);
  }
  std::vector<TensorForm> forms;
  for (const auto& [name, tensor] : tensors)
    forms.push_back({name, gguf_type_for(type, tensor.sizes().vec()), tensor.sizes().vec()});
  GgufWriter writer(path, pairs, forms);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor stored = encode(tensors[i].second.contiguous(), forms[i].type);
    if (forms[i].type == StoredType::f16 && !at::isfinite(stored).all().item<bool>())
      throw InputError("'" + tensors[i].first + "' is not finite in f16; bf16 has a wider range");
    writer.write(stored.data_ptr());
  }
  writer.commit();
}

}  // namespace

StringList export_gguf_adapter(const GgufAdapterOptions& options, Plugins& plugins) {
  const torch::NoGradGuard no_grad;
  const StoredType type = gguf_export_type(options.type);
  DraftFolder draft(free_place(options.output));
  const CombinedAdapters combined = combine(options.adapters, plugins);
  if (combined.updates.empty()) throw InputError("the adapters change no module");
  const LowRank& first = combined.updates.front().update;
  const double alpha = first.scale * static_cast<double>(first.A.size(0));
  std::vector<NamedUpdate> updates;
  for (const SiteUpdate& update : combined.updates) updates.push_back(named(update, *combined.base.model, alpha));
  GgufPairs pairs = gguf_general("adapter", model_name(options.adapters.adapters.front()));
  pairs.emplace_back("adapter.type", std::string("lora"));
  pairs.emplace_back("adapter.lora.alpha", static_cast<float>(alpha));
  write_updates(draft.file("adapter.gguf"), pairs, updates, type);
  const auto base = std::filesystem::absolute(options.adapters.model).lexically_normal();
  write_modelfile(draft, *combined.base.checkpoint, base.string(), "./adapter.gguf");
  draft.publish();
  return combined.base.unknown_bases;
}

}  // namespace peft
