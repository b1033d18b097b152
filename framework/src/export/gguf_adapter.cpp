#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <filesystem>

#include "export/combine.h"
#include "export/gguf_files.h"
#include "export/stored_values.h"
#include "peft/base/error.h"
#include "peft/export/gguf.h"
#include "pretrained/gguf/heads.h"
#include "pretrained/gguf/names.h"

namespace peft {

namespace {

struct NamedUpdate {
  std::string name;  ///< GGUF name of the weight
  Tensor a, b;       ///< in llama.cpp's layout
  int64_t heads;     ///< GgufTensorInfo::heads of b
};

NamedUpdate named(const SiteUpdate& given, const CausalLm& model, double alpha) {
  const auto& [site, update] = given;
  if (site == &model.lm_head() && model.config().tie_word_embeddings)
    throw InputError("'" + site->path() +
                     "' shares the embedding's weight, which llama.cpp cannot adapt separately; "
                     "use 'peft-run export --as gguf'");
  const std::string weight = site->path() + ".weight";
  // llama.cpp multiplies by alpha / r.
  const double ratio = update.scale * static_cast<double>(update.A.size(0)) / alpha;
  if (!std::isfinite(ratio))
    throw InputError("'" + site->path() + "': its scale cannot be expressed by the alpha of the other modules");
  const Tensor B = ratio == 1 ? update.B : update.B * ratio;
  const int64_t heads = permuted_heads(weight, model.config().num_attention_heads, model.config().num_key_value_heads);
  // For an embedding, llama.cpp looks up rows of a.
  const bool rows = site == &model.embedding();
  return {gguf_name_of_hf(weight), rows ? update.A.t().contiguous() : update.A, B, heads};
}

void write_updates(const std::string& path, const GgufPairs& pairs, const std::vector<NamedUpdate>& updates,
                   StoredType type) {
  std::vector<GgufTensorInfo> infos;
  std::vector<Tensor> tensors;
  const auto add = [&](const std::string& name, const Tensor& tensor, int64_t heads) {
    const auto shape = tensor.sizes().vec();
    infos.push_back({{name, gguf_type_for(type, shape), shape}, heads});
    tensors.push_back(tensor);
  };
  for (const NamedUpdate& update : updates) {
    add(update.name + ".lora_a", update.a, 0);
    add(update.name + ".lora_b", update.b, update.heads);
  }
  GgufWriter writer(path, pairs, infos);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    writer.write(encode_finite(tensors[i].contiguous(), infos[i].type, infos[i].name).data_ptr());
  writer.commit();
}

/// The alpha of the first update that has a scale: those of the others are multiples of it.
double common_alpha(const std::vector<SiteUpdate>& updates) {
  for (const auto& [site, update] : updates)
    if (update.scale != 0) return update.scale * static_cast<double>(update.A.size(0));
  return 1;
}

}  // namespace

ReadingNotes export_gguf_adapter(const GgufAdapterOptions& options, Plugins& plugins) {
  const torch::NoGradGuard no_grad;
  const StoredType type = gguf_export_type(options.type);
  AtomicDirectory draft(require_absent(options.output));
  const CombinedAdapters combined = combine(options.adapters, plugins);
  const AddedVocabulary* added = combined.base.checkpoint->added();
  if (added != nullptr && added->other_tokens())
    throw InputError(
        "the adapters change the base's vocabulary (added tokens or rows), which an adapter for llama.cpp cannot "
        "contain; "
        "use 'peft-run export --as gguf'");
  const double alpha = common_alpha(combined.updates);
  std::vector<NamedUpdate> updates;
  for (const SiteUpdate& update : combined.updates) updates.push_back(named(update, *combined.base.model, alpha));
  GgufPairs pairs = gguf_general("adapter", model_name(options.adapters.from.adapters.front()));
  pairs.emplace_back("adapter.type", std::string("lora"));
  pairs.emplace_back("adapter.lora.alpha", static_cast<float>(alpha));
  write_updates(draft.file("adapter.gguf"), pairs, updates, type);
  const auto base = std::filesystem::absolute(options.adapters.from.model).lexically_normal();
  write_modelfile(draft, *combined.base.checkpoint, base.string(), "./adapter.gguf");
  draft.commit();
  return combined.base.notes;
}

}  // namespace peft
