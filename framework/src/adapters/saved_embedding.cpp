// Embedding and head in an adapter's file, PEFT's save_embedding_layers, and the tokenizer beside it.
#include "adapters/saved_embedding.h"

#include <filesystem>

#include "peft/adapters/files.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"
#include "peft/pretrained/vocabulary_overlay.h"
#include "peft/text/chat_template/chat_template.h"
#include "pretrained/hf_folder.h"
#include "text/tokenizer/tokenizer_config.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

const StoredTensor* saved_weight(const SafetensorsFile& file, const std::string& module) {
  for (const std::string& key : keys_of_saved_weight(module))
    for (const StoredTensor& tensor : file.tensors())
      if (tensor.name == key) return &tensor;
  return nullptr;
}

/// The rows of `saved` from `first` on.
std::vector<float> rows_from(const StoredTensor& saved, int64_t first) {
  StoredTensor rest = saved;
  const auto row = element_size(saved.type) * static_cast<uint64_t>(saved.shape[1]);
  rest.data += row * static_cast<uint64_t>(first);
  rest.size -= row * static_cast<uint64_t>(first);
  rest.shape[0] -= first;
  std::vector<float> values(static_cast<std::size_t>(rest.shape[0] * rest.shape[1]));
  to_float(rest, values.data());
  return values;
}

[[noreturn]] void disagree(const std::string& folder, const char* what) {
  throw InputError(printable(folder, 4096) + ": its " + what +
                   " of the adapter before it, so the two cannot be used at once");
}

/// What the folder's tokenizer.json says.
void add_tokens(const std::string& folder, const PretrainedModel& base, VocabularyOverlay& change) {
  const std::string path = (fs::path(folder) / "tokenizer.json").string();
  if (!fs::exists(path)) return;
  const std::vector<AddedToken> own = extra_tokens(base, read_text(path), path);
  if (own.empty()) return;
  if (!change.tokens.empty() && change.tokens != own) disagree(folder, "added tokens are not those");
  change.tokens = own;
}

/// Throws InputError with the folder's name, not the base's.
void require_template(const std::string& source, const std::string& folder) {
  try {
    ChatTemplate::parse(source, "", "");
  } catch (const InputError& error) {
    throw InputError(folder + ": " + error.what());
  }
}

/// What the folder's tokenizer_config.json says, and its chat_template.jinja.
void add_config(const std::string& folder, const PretrainedModel& base, VocabularyOverlay& change) {
  const nlohmann::json config = read_tokenizer_config(folder);
  const std::string name = printable(folder, 4096), of_base = printable(base.path(), 4096);
  const auto add = [&](const char* key, const std::string& own, const char* what) {
    const auto [known, fresh] = change.tokenizer_config.try_emplace(key, own);
    if (!fresh && known->second != own) disagree(folder, what);
  };
  const std::string source = text::template_source(config, name);
  if (!source.empty() && source != text::template_source(base.tokenizer_config(), of_base)) {
    require_template(source, name);
    add("chat_template", source, "chat template is not that");
  }
  for (const char* key : {"bos_token", "eos_token"}) {
    const std::string own = text::special_token(config, key, name);
    if (!own.empty() && own != text::special_token(base.tokenizer_config(), key, of_base))
      add(key, own, "special tokens are not those");
  }
}

/// What the folder's weights say of embedding and head.
void add_rows(const std::string& folder, const PretrainedModel& base, VocabularyOverlay& change) {
  const fs::path path = fs::path(folder) / "adapter_model.safetensors";
  if (!fs::exists(path)) return;  // opening the adapter tells what is there instead
  const auto file = SafetensorsFile::open(path.string());
  for (const std::string module : {"model.embed_tokens", "lm_head"}) {
    const StoredTensor *saved = saved_weight(*file, module), *own = base.find(module + ".weight");
    if (own == nullptr && module == "lm_head" && change.values.empty())  // tied, and the head alone is adapted
      own = base.find("model.embed_tokens.weight");
    if (saved == nullptr || own == nullptr || own->shape.size() != 2) continue;
    // Another width, or integers: filling the adapter tells.
    if (saved->shape.size() != 2 || saved->shape[1] != own->shape[1] || saved->shape[0] == 0) continue;
    if (saved->type > StoredType::bf16) continue;
    if (change.rows != 0 && change.rows != saved->shape[0])
      disagree(folder, "rows of embedding and head are not those");
    change.rows = saved->shape[0];
    if (saved->shape[0] <= own->shape[0]) continue;
    std::vector<float> values = rows_from(*saved, own->shape[0]);
    const auto [known, fresh] = change.values.try_emplace(own->name, values);
    if (!fresh && known->second != values) disagree(folder, "rows of added tokens are not those");
  }
}

}  // namespace

std::vector<std::string> keys_of_saved_weight(const std::string& module) {
  std::vector<std::string> keys;
  for (const char* wrapper : {".original_module", ".base_layer", ".token_adapter.base_layer", ""})
    for (const char* prefix : {"base_model.model.", "base_model."})
      keys.push_back(prefix + module + wrapper + ".weight");
  return keys;
}

std::string key_of_trained_copy(const std::string& key) {
  return key.substr(0, key.rfind('.')) + ".modules_to_save.weight";
}

VocabularyOverlay adapter_tokenizer_changes(const PretrainedModel& base, const StringList& folders) {
  VocabularyOverlay change;
  for (const std::string& folder : folders) {
    add_tokens(folder, base, change);
    add_config(folder, base, change);
  }
  return change;
}

std::shared_ptr<const PretrainedModel> base_with_vocabulary(std::shared_ptr<const PretrainedModel> base,
                                                            VocabularyOverlay change, const StringList& folders) {
  for (const std::string& folder : folders) add_rows(folder, *base, change);
  return with_vocabulary(std::move(base), std::move(change));
}

}  // namespace peft
