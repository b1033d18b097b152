#include "peft/pretrained/vocabulary_overlay.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "files/json_object_reader.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"
#include "pretrained/added_token_json.h"
#include "pretrained/tokenizer_files.h"
#include "text/tokenizer/tokenizer_json.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";
/// Files from which tokenizer_config() is read, and another file that can contain the template.
const std::set<std::string> kConfigFiles = {"tokenizer_config.json", kTemplateFile, "chat_template.json"};

bool has_token_rows(const std::string& tensor) { return tensor == kEmbedding || tensor == kHead; }

/// Adds the tokens to tokenizer.json and sets `first_id` to the id of the first one.
std::string with_tokens(const PretrainedModel& base, const std::vector<AddedToken>& tokens, int64_t& first_id) {
  const std::string name = text::tokenizer_name(base.path());
  json tokenizer = text::parse_tokenizer_json(base.tokenizer_json(), name);
  const JsonObjectReader in(tokenizer, name);
  first_id = next_token_id(in);
  std::set<std::string> known;
  for (const auto& [id, token] : read_added_tokens(in)) known.insert(token.content);
  const JsonObjectReader model = in.at("model");
  int64_t id = first_id;
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) throw ConfigError("[model] added_tokens: a token is empty");
    if (model.object("vocab").contains(token.content) || !known.insert(token.content).second)
      throw ConfigError("[model] added_tokens: '" + printable(token.content) + "' is already in the vocabulary");
    json entry = to_json(token);
    entry["id"] = id++;
    tokenizer["added_tokens"].push_back(std::move(entry));
  }
  return tokenizer.dump();
}

class OverlaidModel final : public PretrainedModel {
 public:
  OverlaidModel(std::shared_ptr<const PretrainedModel> base, VocabularyOverlay overlay, AddedVocabulary added,
                std::string tokenizer)
      : base_(std::move(base)),
        values_(std::move(overlay.values)),
        added_(std::move(added)),
        tokenizer_(std::move(tokenizer)),
        config_(base_->config()),
        tokenizer_config_(base_->tokenizer_config()) {
    config_["vocab_size"] = added_.rows;
    for (const auto& [key, value] : overlay.tokenizer_config) tokenizer_config_[key] = value;
    for (StoredTensor tensor : base_->tensors()) {
      if (is_resized(tensor.name)) resize(tensor);
      tensors_.push_back(std::move(tensor));
    }
  }

  const std::string& path() const override { return base_->path(); }
  const std::string& base_name() const override { return base_->base_name(); }
  bool ignores_unknown() const override { return base_->ignores_unknown(); }
  std::vector<std::string> notes() const override { return base_->notes(); }
  const json& config() const override { return config_; }
  const json& tokenizer_config() const override { return tokenizer_config_; }
  const json& generation_config() const override { return base_->generation_config(); }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  std::string tokenizer_json() const override { return added_.tokens.empty() ? base_->tokenizer_json() : tokenizer_; }
  std::string tokenizer_bytes() const override {
    json tokens = json::array();
    for (const AddedToken& token : added_.tokens) tokens.push_back(to_json(token));
    return base_->tokenizer_bytes() + tokens.dump();
  }
  std::string fingerprint() const override { return base_->fingerprint(); }
  const AddedVocabulary* added() const override { return &added_; }
  bool is_direct(const StoredTensor& tensor) const override {
    return !is_resized(tensor.name) && base_->is_direct(tensor);
  }

  void read(const StoredTensor& tensor, float* out) const override {
    if (!is_resized(tensor.name)) return base_->read(tensor, out);
    const StoredTensor& stored = *base_->find(tensor.name);
    if (stored.shape[0] <= tensor.shape[0]) {
      base_->read(stored, out);
      return add_rows(stored, tensor.shape[0], out);
    }
    std::vector<float> all(static_cast<std::size_t>(stored.shape[0] * stored.shape[1]));
    base_->read(stored, all.data());
    std::copy_n(all.begin(), tensor.shape[0] * tensor.shape[1], out);
  }

 private:
  bool is_resized(const std::string& tensor) const {
    return added_.rows != added_.stored_rows && has_token_rows(tensor);
  }
  void resize(StoredTensor& tensor) const;
  void add_rows(const StoredTensor& stored, int64_t rows, float* out) const;
  std::shared_ptr<const PretrainedModel> base_;
  std::map<std::string, std::vector<float>> values_;
  AddedVocabulary added_;
  std::string tokenizer_;
  json config_, tokenizer_config_;
  std::vector<StoredTensor> tensors_;
};

/// A quantized tensor becomes fp32, because the added rows are not quantized.
void OverlaidModel::resize(StoredTensor& tensor) const {
  if (tensor.shape != base_->find(kEmbedding)->shape)
    throw InputError(printable_path(path()) + ": '" + tensor.name + "' and '" + kEmbedding +
                     "' have different shapes, so tokens cannot be added");
  if (tensor.type >= StoredType::q4_0) tensor.type = StoredType::f32;
  tensor.shape[0] = added_.rows;
  tensor.data = nullptr;  // read() computes the values
  tensor.size = element_size(tensor.type) * static_cast<uint64_t>(tensor.shape[0] * tensor.shape[1]);
}

/// Adds rows to `out`, which contains the stored rows and has room for `rows`.
void OverlaidModel::add_rows(const StoredTensor& stored, int64_t rows, float* out) const {
  const int64_t stored_rows = stored.shape[0], width = stored.shape[1], stored_size = stored_rows * width;
  if (const auto given = values_.find(stored.name); given != values_.end()) {
    std::copy(given->second.begin(), given->second.end(), out + stored_size);
    return;
  }
  std::vector<double> sum(static_cast<std::size_t>(width));
  for (int64_t i = 0; i < stored_size; ++i) sum[static_cast<std::size_t>(i % width)] += static_cast<double>(out[i]);
  for (int64_t i = stored_size; i < rows * width; ++i)
    out[i] = static_cast<float>(sum[static_cast<std::size_t>(i % width)] / static_cast<double>(stored_rows));
}

}  // namespace

std::shared_ptr<const PretrainedModel> with_vocabulary(std::shared_ptr<const PretrainedModel> base,
                                                       VocabularyOverlay overlay) {
  const StoredTensor* embedding = base->find(kEmbedding);
  if (embedding == nullptr || embedding->shape.size() != 2) return base;  // the loader refuses such a model
  AddedVocabulary added{.tokens = overlay.tokens, .stored_rows = embedding->shape[0]};
  std::string tokenizer;
  if (!overlay.tokens.empty()) tokenizer = with_tokens(*base, overlay.tokens, added.first_id);
  const int64_t needed = overlay.tokens.empty() ? 0 : added.first_id + static_cast<int64_t>(overlay.tokens.size());
  added.rows = overlay.rows > 0 ? overlay.rows : std::max(added.stored_rows, needed);
  if (added.rows < needed)
    throw InputError(printable_path(base->path()) + ": an embedding with " + std::to_string(added.rows) +
                     " rows is too small for the added tokens, whose last id is " + std::to_string(needed - 1));
  const int64_t added_rows = std::max<int64_t>(0, added.rows - added.stored_rows);
  for (const auto& [name, values] : overlay.values)
    if (static_cast<int64_t>(values.size()) != added_rows * embedding->shape[1])
      throw InputError("the values for '" + printable(name) + "' are not " + std::to_string(added_rows) +
                       " added rows");
  added.own_config = !overlay.tokenizer_config.empty();
  if (!added.other_tokens() && !added.own_config) return base;
  return std::make_shared<OverlaidModel>(std::move(base), std::move(overlay), std::move(added), std::move(tokenizer));
}

std::vector<AddedToken> extra_tokens(const PretrainedModel& base, const std::string& tokenizer_json,
                                     const std::string& name) {
  std::vector<AddedToken> tokens;
  // A base without a tokenizer.json is not an error here: text may never be tokenized.
  if (fs::is_directory(base.path()) && !fs::exists(fs::path(base.path()) / "tokenizer.json")) return tokens;
  const std::string base_text = base.tokenizer_json();
  if (base_text == tokenizer_json) return tokens;
  const std::string base_name = text::tokenizer_name(base.path());
  const json base_tokenizer = text::parse_tokenizer_json(base_text, base_name);
  if (!supports_added_tokens(base_tokenizer)) return tokens;
  const json tokenizer = text::parse_tokenizer_json(tokenizer_json, name);
  const JsonObjectReader base_reader(base_tokenizer, base_name);
  const int64_t first_id = next_token_id(base_reader);
  std::set<std::string> known;
  for (const auto& [id, token] : read_added_tokens(base_reader)) known.insert(token.content);
  for (auto& [id, token] : read_added_tokens(JsonObjectReader(tokenizer, name))) {
    if (id < first_id) continue;
    const int64_t expected = first_id + static_cast<int64_t>(tokens.size());
    if (id != expected)
      throw InputError(printable_path(name) + ": the token '" + printable(token.content) + "' has the id " +
                       std::to_string(id) + ", expected " + std::to_string(expected) +
                       ": this tokenizer does not extend the base's vocabulary");
    if (token.content.empty() || base_tokenizer["model"]["vocab"].contains(token.content) ||
        !known.insert(token.content).second)
      throw InputError(printable_path(name) + ": the token '" + printable(token.content) + "' with the id " +
                       std::to_string(id) + " is empty or already in the base's vocabulary");
    tokens.push_back(token);
  }
  return tokens;
}

std::vector<std::string> tokenizer_files() {
  std::vector<std::string> names = {"tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                                    "merges.txt",     "tokenizer.model"};
  names.insert(names.end(), kConfigFiles.begin(), kConfigFiles.end());
  return names;
}

void write_tokenizer(const PretrainedModel& model, const std::string& folder) {
  const auto file = [&](const std::string& name) { return (fs::path(folder) / name).string(); };
  const bool is_folder = fs::is_directory(model.path());
  const AddedVocabulary* added = model.added();
  const bool tokens_changed = !is_folder || (added != nullptr && !added->tokens.empty());
  const bool config_changed = !is_folder || (added != nullptr && added->own_config);
  if (config_changed) {
    json config = model.tokenizer_config();
    if (const auto source = config.find("chat_template"); source != config.end() && source->is_string()) {
      write_file(file(kTemplateFile), source->get<std::string>());
      config.erase(source);
    }
    write_file(file("tokenizer_config.json"), config.dump(2) + "\n");
  }
  if (tokens_changed) write_file(file("tokenizer.json"), model.tokenizer_json());
  if (!is_folder) return;
  for (const std::string& name : tokenizer_files()) {
    const bool changed = name == "tokenizer.json" ? tokens_changed : config_changed && kConfigFiles.contains(name);
    if (const fs::path source = fs::path(model.path()) / name; !changed && fs::exists(source))
      write_file(file(name), read_text(source.string()));
  }
  if (config_changed) return;
  for (const fs::path& source : additional_templates(model.path())) {
    fs::create_directories(fs::path(folder) / kTemplateFolder);
    write_file((fs::path(folder) / kTemplateFolder / source.filename()).string(), read_text(source.string()));
  }
}

}  // namespace peft
