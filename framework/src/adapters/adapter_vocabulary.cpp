// Embedding and head in an adapter's file (HF PEFT's save_embedding_layers), and the tokenizer saved with them.
#include "peft/adapters/adapter_vocabulary.h"

#include <filesystem>

#include "adapters/saved_embedding.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"
#include "peft/pretrained/vocabulary_overlay.h"
#include "peft/text/chat_template/chat_template.h"
#include "pretrained/tokenizer_files.h"
#include "text/tokenizer/tokenizer_config.h"
#include "text/tokenizer/tokenizer_json.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

const StoredTensor* saved_weight(const SafetensorsFile& file, const std::string& module) {
  for (const std::string& key : keys_of_saved_weight(module))
    for (const StoredTensor& tensor : file.tensors())
      if (tensor.name == key) return &tensor;
  return nullptr;
}

/// The rows of `saved`, starting with row `first`.
std::vector<float> rows_from(const StoredTensor& saved, int64_t first) {
  StoredTensor rows = saved;
  const auto row_bytes = element_size(saved.type) * static_cast<uint64_t>(saved.shape[1]);
  rows.data += row_bytes * static_cast<uint64_t>(first);
  rows.size -= row_bytes * static_cast<uint64_t>(first);
  rows.shape[0] -= first;
  std::vector<float> values(static_cast<std::size_t>(rows.shape[0] * rows.shape[1]));
  to_float(rows, values.data());
  return values;
}

[[noreturn]] void throw_disagreement(const std::string& folder, const char* what) {
  throw InputError(printable_path(folder) + ": its " + what +
                   " of the adapter before it, so the two cannot be used together");
}

/// Adds the tokens of the folder's tokenizer.json.
void add_tokens(const std::string& folder, const PretrainedModel& base, VocabularyOverlay& changes) {
  const std::string path = (fs::path(folder) / "tokenizer.json").string();
  if (!fs::exists(path)) return;
  const std::vector<AddedToken> added =
      extra_tokens(base, read_tokenizer_json(folder, read_tokenizer_config(folder)), path);
  if (added.empty()) return;
  if (!changes.tokens.empty() && changes.tokens != added) throw_disagreement(folder, "added tokens differ from those");
  changes.tokens = added;
}

/// Throws InputError that names the folder, not the base.
void check_template(const std::string& source, const std::string& folder) {
  try {
    ChatTemplate::parse(source, {});
  } catch (const InputError& error) {
    throw InputError(folder + ": " + error.what());
  }
}

/// "" also for a base whose templates all have other names, which an adapter's template replaces.
std::string default_template(const PretrainedModel& base, const std::string& name) {
  const auto templates = text::named_templates(base.tokenizer_config(), name);
  const auto found = templates.find("default");
  return found == templates.end() ? "" : found->second;
}

/// Adds what differs in the folder's tokenizer_config.json and chat_template.jinja.
void add_config(const std::string& folder, const PretrainedModel& base, VocabularyOverlay& changes) {
  const nlohmann::json config = read_tokenizer_config(folder);
  const std::string name = text::tokenizer_config_name(folder);
  const std::string base_name = text::tokenizer_config_name(base.path());
  const auto add = [&](const char* key, const std::string& value, const char* what) {
    const auto [known, inserted] = changes.tokenizer_config.try_emplace(key, value);
    if (!inserted && known->second != value) throw_disagreement(folder, what);
  };
  const std::string source = text::template_source(config, name);
  if (!source.empty() && source != default_template(base, base_name)) {
    check_template(source, printable_path(folder));
    add("chat_template", source, "chat template differs from that");
  }
  for (const char* key : {"bos_token", "eos_token"}) {
    const std::string token = text::special_token(config, key, name);
    if (!token.empty() && token != text::special_token(base.tokenizer_config(), key, base_name))
      add(key, token, "special tokens differ from those");
  }
}

/// Adds the rows of embedding and head that the folder's weights have beyond the base's.
void add_rows(const std::string& folder, const PretrainedModel& base, VocabularyOverlay& changes) {
  const fs::path path = fs::path(folder) / "adapter_model.safetensors";
  if (!fs::exists(path)) return;  // loading the adapter reports it
  const auto file = SafetensorsFile::open(path.string());
  for (const std::string module : {"model.embed_tokens", "lm_head"}) {
    const StoredTensor *saved = saved_weight(*file, module), *base_weight = base.find(module + ".weight");
    if (base_weight == nullptr && module == "lm_head" && changes.values.empty())  // tied, and only the head is adapted
      base_weight = base.find("model.embed_tokens.weight");
    if (saved == nullptr || base_weight == nullptr || base_weight->shape.size() != 2) continue;
    // Loading the adapter reports another width or dtype.
    if (saved->shape.size() != 2 || saved->shape[1] != base_weight->shape[1] || saved->shape[0] == 0) continue;
    if (saved->type > StoredType::bf16) continue;
    if (changes.rows != 0 && changes.rows != saved->shape[0])
      throw_disagreement(folder, "number of embedding rows differs from that");
    changes.rows = saved->shape[0];
    if (saved->shape[0] <= base_weight->shape[0]) continue;
    std::vector<float> values = rows_from(*saved, base_weight->shape[0]);
    const auto [known, inserted] = changes.values.try_emplace(base_weight->name, values);
    if (!inserted && known->second != values) throw_disagreement(folder, "rows of added tokens differ from those");
  }
}

}  // namespace

VocabularyOverlay adapter_tokenizer_changes(const PretrainedModel& base, const StringList& folders) {
  VocabularyOverlay changes;
  for (const std::string& folder : folders) {
    add_tokens(folder, base, changes);
    add_config(folder, base, changes);
  }
  return changes;
}

std::shared_ptr<const PretrainedModel> base_with_vocabulary(std::shared_ptr<const PretrainedModel> base,
                                                            VocabularyOverlay changes, const StringList& folders) {
  for (const std::string& folder : folders) add_rows(folder, *base, changes);
  return with_vocabulary(std::move(base), std::move(changes));
}

}  // namespace peft
