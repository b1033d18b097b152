#include "peft/pretrained/vocabulary_overlay.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"
#include "text/json_fields.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using text::Fields;

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";
/// What tokenizer_config() of a folder is made of, and another place for the template.
const std::set<std::string> kOfConfig = {"tokenizer_config.json", "chat_template.jinja", "chat_template.json"};

bool has_rows_of_tokens(const std::string& tensor) { return tensor == kEmbedding || tensor == kHead; }

json json_of(const AddedToken& token) {
  return {{"content", token.content}, {"special", token.special}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},   {"rstrip", token.rstrip},   {"normalized", token.normalized}};
}

AddedToken token_of(const Fields& in) {
  AddedToken token{.content = in.text("content"),
                   .special = in.flag("special", false),
                   .single_word = in.flag("single_word", false),
                   .lstrip = in.flag("lstrip", false),
                   .rstrip = in.flag("rstrip", false)};
  token.normalized = in.flag("normalized", !token.special);
  return token;
}

/// The added tokens of a tokenizer.json by id.
std::map<int64_t, AddedToken> added_of(const Fields& tokenizer) {
  std::map<int64_t, AddedToken> all;
  if (!tokenizer.has("added_tokens")) return all;
  for (const Fields& in : tokenizer.each("added_tokens")) {
    const int64_t id = in.integer("id");
    if (id < 0 || id > INT32_MAX) in.fail("'id' must be a token's");
    all.emplace(id, token_of(in));
  }
  return all;
}

/// The id that HF tokenizers would give to a token added next.
int64_t next_id(const Fields& tokenizer) {
  auto next = static_cast<int64_t>(tokenizer.at("model").object("vocab").size());
  const auto added = added_of(tokenizer);
  if (!added.empty()) next = std::max(next, added.rbegin()->first + 1);
  return next;
}

/// Whether a tokenizer.json is of the kind that takes tokens.
bool takes_tokens(const json& tokenizer) {
  const auto model = tokenizer.find("model");
  if (model == tokenizer.end() || !model->is_object()) return false;
  const auto vocab = model->find("vocab");
  return vocab != model->end() && vocab->is_object();
}

/// tokenizer.json with the tokens at its end; `first` becomes the id of the first.
std::string with_tokens(const PretrainedModel& base, const std::vector<AddedToken>& tokens, int64_t& first) {
  const std::string name = base.path() + ": tokenizer";
  json tokenizer = text::parse_json(base.tokenizer_json(), name);
  const Fields in(tokenizer, name);
  first = next_id(in);
  std::set<std::string> known;
  for (const auto& [id, token] : added_of(in)) known.insert(token.content);
  const Fields model = in.at("model");
  int64_t id = first;
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) throw ConfigError("[model] added_tokens: one has no text");
    if (model.object("vocab").contains(token.content) || !known.insert(token.content).second)
      throw ConfigError("[model] added_tokens: '" + printable(token.content) + "' is in the vocabulary already");
    json entry = json_of(token);
    entry["id"] = id++;
    tokenizer["added_tokens"].push_back(std::move(entry));
  }
  return tokenizer.dump();
}

class WithVocabulary final : public PretrainedModel {
 public:
  WithVocabulary(std::shared_ptr<const PretrainedModel> base, VocabularyOverlay change, AddedVocabulary added,
                 std::string tokenizer)
      : base_(std::move(base)),
        values_(std::move(change.values)),
        added_(std::move(added)),
        tokenizer_(std::move(tokenizer)),
        config_(base_->config()),
        tokenizer_config_(base_->tokenizer_config()) {
    config_["vocab_size"] = added_.rows;
    for (const auto& [key, value] : change.tokenizer_config) tokenizer_config_[key] = value;
    for (StoredTensor tensor : base_->tensors()) {
      if (is_resized(tensor.name)) resize(tensor);
      tensors_.push_back(std::move(tensor));
    }
  }

  const std::string& path() const override { return base_->path(); }
  const json& config() const override { return config_; }
  const json& tokenizer_config() const override { return tokenizer_config_; }
  const json& generation_config() const override { return base_->generation_config(); }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  std::string tokenizer_json() const override { return added_.tokens.empty() ? base_->tokenizer_json() : tokenizer_; }
  std::string tokenizer_bytes() const override {
    json tokens = json::array();
    for (const AddedToken& token : added_.tokens) tokens.push_back(json_of(token));
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
    return added_.rows != added_.stored_rows && has_rows_of_tokens(tensor);
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

/// A quantised one becomes fp32: new rows are no whole blocks of it.
void WithVocabulary::resize(StoredTensor& tensor) const {
  if (tensor.shape != base_->find(kEmbedding)->shape)
    throw InputError(printable(path(), 4096) + ": '" + tensor.name + "' and '" + kEmbedding +
                     "' are not of one shape, so that tokens cannot be added");
  if (tensor.type >= StoredType::q4_0) tensor.type = StoredType::f32;
  tensor.shape[0] = added_.rows;
  tensor.data = nullptr;  // made by read()
  tensor.size = element_size(tensor.type) * static_cast<uint64_t>(tensor.shape[0] * tensor.shape[1]);
}

/// `out` holds the stored rows, and has room for `rows`.
void WithVocabulary::add_rows(const StoredTensor& stored, int64_t rows, float* out) const {
  const int64_t known = stored.shape[0], width = stored.shape[1];
  if (const auto given = values_.find(stored.name); given != values_.end()) {
    std::copy(given->second.begin(), given->second.end(), out + known * width);
    return;
  }
  std::vector<double> sum(static_cast<std::size_t>(width));
  for (int64_t i = 0; i < known * width; ++i) sum[static_cast<std::size_t>(i % width)] += static_cast<double>(out[i]);
  for (int64_t i = known * width; i < rows * width; ++i)
    out[i] = static_cast<float>(sum[static_cast<std::size_t>(i % width)] / static_cast<double>(known));
}

}  // namespace

std::shared_ptr<const PretrainedModel> with_vocabulary(std::shared_ptr<const PretrainedModel> base,
                                                       VocabularyOverlay change) {
  const StoredTensor* embedding = base->find(kEmbedding);
  if (embedding == nullptr || embedding->shape.size() != 2) return base;  // which the loader will not take
  AddedVocabulary added{.tokens = change.tokens, .stored_rows = embedding->shape[0]};
  std::string tokenizer;
  if (!change.tokens.empty()) tokenizer = with_tokens(*base, change.tokens, added.first_id);
  const int64_t needed = change.tokens.empty() ? 0 : added.first_id + static_cast<int64_t>(change.tokens.size());
  added.rows = change.rows > 0 ? change.rows : std::max(added.stored_rows, needed);
  if (added.rows < needed)
    throw InputError(printable(base->path(), 4096) + ": an embedding of " + std::to_string(added.rows) +
                     " rows does not hold the added tokens, the last of which is " + std::to_string(needed - 1));
  for (const auto& [name, values] : change.values) {
    const int64_t beyond = std::max<int64_t>(0, added.rows - added.stored_rows);
    if (static_cast<int64_t>(values.size()) != beyond * embedding->shape[1])
      throw InputError("the rows added to '" + printable(name) + "' are not " + std::to_string(beyond));
  }
  added.own_config = !change.tokenizer_config.empty();
  if (!added.other_tokens() && !added.own_config) return base;
  return std::make_shared<WithVocabulary>(std::move(base), std::move(change), std::move(added), std::move(tokenizer));
}

std::vector<AddedToken> extra_tokens(const PretrainedModel& base, const std::string& tokenizer_json,
                                     const std::string& name) {
  std::vector<AddedToken> tokens;
  // A base without one that takes tokens: its own reader tells, once a text is there to read.
  if (fs::is_directory(base.path()) && !fs::exists(fs::path(base.path()) / "tokenizer.json")) return tokens;
  const std::string own = base.tokenizer_json();
  if (own == tokenizer_json) return tokens;
  const std::string of_base = base.path() + ": tokenizer";
  const json before = text::parse_json(own, of_base);
  if (!takes_tokens(before)) return tokens;
  const json after = text::parse_json(tokenizer_json, name);
  const int64_t first = next_id(Fields(before, of_base));
  std::set<std::string> known;
  for (const auto& [id, token] : added_of(Fields(before, of_base))) known.insert(token.content);
  for (auto& [id, token] : added_of(Fields(after, name))) {
    if (id < first) continue;
    const int64_t expected = first + static_cast<int64_t>(tokens.size());
    if (id != expected)
      throw InputError(printable(name, 4096) + ": the token '" + printable(token.content) + "' has the id " +
                       std::to_string(id) + ", but the next one after this base's would be " +
                       std::to_string(expected) + ": it is of another vocabulary");
    if (token.content.empty() || before["model"]["vocab"].contains(token.content) ||
        !known.insert(token.content).second)
      throw InputError(printable(name, 4096) + ": the token " + std::to_string(id) + ", '" + printable(token.content) +
                       "', is one that the base has already, or has no text");
    tokens.push_back(token);
  }
  return tokens;
}

std::vector<std::string> tokenizer_files() {
  std::vector<std::string> names = {"tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                                    "merges.txt",     "tokenizer.model"};
  names.insert(names.end(), kOfConfig.begin(), kOfConfig.end());
  return names;
}

void write_tokenizer(const PretrainedModel& checkpoint, const std::string& folder) {
  const auto file = [&](const std::string& name) { return (fs::path(folder) / name).string(); };
  const bool as_it_is = fs::is_directory(checkpoint.path());
  const AddedVocabulary* change = checkpoint.added();
  const bool own_tokens = !as_it_is || (change != nullptr && !change->tokens.empty());
  const bool own_config = !as_it_is || (change != nullptr && change->own_config);
  if (own_config) write_file(file("tokenizer_config.json"), checkpoint.tokenizer_config().dump(2) + "\n");
  if (own_tokens) write_file(file("tokenizer.json"), checkpoint.tokenizer_json());
  if (!as_it_is) return;
  for (const std::string& name : tokenizer_files()) {
    const bool is_made = name == "tokenizer.json" ? own_tokens : own_config && kOfConfig.contains(name);
    if (const fs::path from = fs::path(checkpoint.path()) / name; !is_made && fs::exists(from))
      write_file(file(name), read_text(from.string()));
  }
}

}  // namespace peft
