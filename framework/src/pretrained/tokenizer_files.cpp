#include "pretrained/tokenizer_files.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "peft/base/error.h"
#include "peft/files/json.h"
#include "pretrained/added_token_json.h"
#include "text/tokenizer/tokenizer_config.h"
#include "text/tokenizer/tokenizer_json.h"
#include "text/unicode.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMaxTokenizerBytes = std::size_t{256} << 20, kMaxTemplateBytes = std::size_t{1} << 20;
constexpr const char* kSaveAgain =
    "; let transformers write both files again: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)";

std::string file_name(const std::string& folder, const char* file) {
  return printable_path((fs::path(folder) / file).string());
}

std::string read_template(const fs::path& file) {
  std::string source = read_text(file.string(), kMaxTemplateBytes);
  if (text::find_bad_utf8(source) != source.npos) throw InputError(printable_path(file.string()) + ": is not UTF-8");
  return source;
}

/// Files have precedence over tokenizer_config.json, as transformers 5 writes them.
void add_templates(const std::string& folder, json& config) {
  json named = json::array();
  if (const fs::path file = fs::path(folder) / kTemplateFile; is_present(file))
    named.push_back({{"name", "default"}, {"template", read_template(file)}});
  for (const fs::path& file : additional_templates(folder))
    named.push_back({{"name", file.stem().string()}, {"template", read_template(file)}});
  if (named.empty()) return;
  const bool only_default = named.size() == 1 && named[0]["name"] == "default";
  config["chat_template"] = only_default ? named[0]["template"] : named;
}

/// The text of a token that is a string or an object with `content`; nothing for null and other values.
std::optional<std::string> token_text(const json& token) {
  if (token.is_string()) return token.get<std::string>();
  const auto content = token.is_object() ? token.find("content") : token.end();
  if (!token.is_object() || content == token.end() || !content->is_string()) return std::nullopt;
  return content->get<std::string>();
}

/// As tokenizer_config.json holds a token: AddedToken only if it has flags, because transformers rejects other objects.
json as_config_token(const json& token) {
  const auto flag = [&](const char* name) {
    const auto found = token.find(name);
    return found != token.end() && found->is_boolean() && found->get<bool>();
  };
  if (!token.is_object() || !token_text(token)) return token;
  if (!flag("lstrip") && !flag("rstrip") && !flag("single_word") && !flag("normalized")) return *token_text(token);
  json typed = token;
  typed["__type"] = "AddedToken";
  return typed;
}

[[noreturn]] void fail_special_token(const std::string& folder, const std::string& key, const std::string& what) {
  throw InputError(file_name(folder, "tokenizer_config.json") + " and special_tokens_map.json: " + what + " '" + key +
                   "'" + kSaveAgain);
}

/// Adds a token list of special_tokens_map.json.
void add_token_list(const std::string& folder, const std::string& key, const json& listed, json& config) {
  if (!listed.is_array())
    throw InputError(file_name(folder, "special_tokens_map.json") + ": '" + key + "' must be a list");
  const bool is_first = !config.contains("extra_special_tokens") || config["extra_special_tokens"].is_null();
  const std::string known = is_first ? key : "extra_special_tokens";
  if (is_first) config[known] = json::array();
  if (!config[known].is_array()) return;
  for (const json& token : listed) {
    const auto same = [&](const json& other) { return token_text(other) == token_text(token); };
    if (std::any_of(config[known].begin(), config[known].end(), same)) continue;
    if (!is_first && key == "additional_special_tokens") fail_special_token(folder, key, "they list other tokens as");
    config[known].push_back(as_config_token(token));
  }
}

/// transformers reads special_tokens_map.json only next to a configuration without `added_tokens_decoder`.
void add_special_tokens_map(const std::string& folder, json& config) {
  if (config.contains("added_tokens_decoder")) return;
  const json map = read_optional_object((fs::path(folder) / "special_tokens_map.json").string());
  for (const auto& [key, token] : map.items()) {
    if (token.is_null()) continue;
    if (key == "additional_special_tokens" || (key == "extra_special_tokens" && token.is_array())) {
      add_token_list(folder, key, token, config);
      continue;
    }
    if (const auto known = config.find(key); known != config.end() && !known->is_null())
      if (token_text(*known) != token_text(token)) fail_special_token(folder, key, "they disagree on");
    config[key] = as_config_token(token);
  }
}

/// A token that a file other than tokenizer.json names.
struct NamedToken {
  AddedToken token;
  std::optional<int64_t> id;
  std::string source;      ///< the file, for messages
  bool has_flags = false;  ///< the file gives them, too
};

/// A string is a special token.
NamedToken read_named(const json& token, const std::string& source, const std::string& key) {
  if (token.is_string())
    return {{.content = token.get<std::string>(), .special = true, .normalized = false}, std::nullopt, source};
  if (!token.is_object()) throw InputError(source + ": '" + key + "' must be a string or an object with 'content'");
  NamedToken named{read_added_token(JsonObjectReader(token, source + ": '" + key + "'")), std::nullopt, source};
  named.token.special = true;
  named.token.normalized = token.value("normalized", false);
  return named;
}

std::vector<NamedToken> from_decoder(const json& decoder, const std::string& source) {
  if (!decoder.is_object()) throw InputError(source + ": 'added_tokens_decoder' must be an object");
  std::map<int64_t, NamedToken> by_id;
  for (const auto& [key, token] : decoder.items()) {
    int64_t id = -1;
    const auto end = key.data() + key.size();
    if (std::from_chars(key.data(), end, id).ptr != end || id < 0)
      throw InputError(source + ": 'added_tokens_decoder': '" + printable(key) + "' is not a token id");
    const std::string location = source + ": 'added_tokens_decoder'." + key;
    if (!token.is_object()) throw InputError(location + ": must be an object");
    by_id.emplace(id, NamedToken{read_added_token(JsonObjectReader(token, location)), id, source, true});
  }
  std::vector<NamedToken> all;
  for (auto& [id, token] : by_id) all.push_back(std::move(token));
  return all;
}

/// added_tokens.json: ids by token.
std::vector<NamedToken> from_added_tokens(const json& file, const std::string& source,
                                          const std::set<std::string>& special) {
  std::map<int64_t, NamedToken> by_id;
  for (const auto& [content, id] : file.items()) {
    if (!id.is_number_unsigned()) throw InputError(source + ": '" + printable(content) + "' must have an id");
    const bool is_special = special.contains(content);
    const AddedToken token{.content = content, .special = is_special, .normalized = !is_special};
    if (!by_id.emplace(id.get<int64_t>(), NamedToken{token, id.get<int64_t>(), source}).second)
      throw InputError(source + ": two tokens have the id " + std::to_string(id.get<int64_t>()));
  }
  std::vector<NamedToken> all;
  for (auto& [id, token] : by_id) all.push_back(std::move(token));
  return all;
}

/// The tokens of added_tokens.json that transformers takes for special: not those listed in special_tokens_map.json
/// under their older name, `additional_special_tokens`.
std::set<std::string> special_in_added_tokens(const json& config) {
  std::set<std::string> special;
  for (const std::string& key : text::special_token_keys(config))
    if (const auto token = token_text(config[key])) special.insert(*token);
  if (const auto extra = config.find("extra_special_tokens"); extra != config.end() && extra->is_array())
    for (const json& token : *extra)
      if (const auto content = token_text(token)) special.insert(*content);
  return special;
}

/// The special tokens of the configuration, which read_tokenizer_config() completed, in transformers' order.
std::vector<NamedToken> special_tokens_of(const json& config, const std::string& source) {
  std::vector<NamedToken> all;
  const auto add = [&](const std::string& key, const json& token) {
    if (!token.is_null()) all.push_back(read_named(token, source, key));
  };
  for (const std::string& key : text::special_token_keys(config)) add(key, config[key]);
  for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
    const auto listed = config.find(key);
    if (listed == config.end() || listed->is_null()) continue;
    if (!listed->is_structured()) throw InputError(source + ": '" + key + "' must be a list or an object");
    for (const auto& [name, token] : listed->items()) add(listed->is_object() ? name : key, token);
    break;
  }
  return all;
}

std::vector<NamedToken> named_tokens(const std::string& folder, const json& config) {
  const std::string source = file_name(folder, "tokenizer_config.json");
  const std::vector<NamedToken> special = special_tokens_of(config, source);
  std::vector<NamedToken> all;
  if (config.contains("added_tokens_decoder")) {
    all = from_decoder(config["added_tokens_decoder"], source);
  } else {
    const std::string file = (fs::path(folder) / "added_tokens.json").string();
    all = from_added_tokens(read_optional_object(file), printable_path(file), special_in_added_tokens(config));
  }
  all.insert(all.end(), special.begin(), special.end());
  return all;
}

std::string flags_of(const AddedToken& token) {
  std::string flags;
  const auto add = [&](bool set, const char* name) {
    if (set) flags += (flags.empty() ? "" : ", ") + std::string(name);
  };
  add(token.special, "special");
  add(token.single_word, "single_word");
  add(token.lstrip, "lstrip");
  add(token.rstrip, "rstrip");
  add(token.normalized, "normalized");
  return flags.empty() ? "none" : flags;
}

/// tokenizer.json, to which tokens of other files are added.
class TokenizerFile {
 public:
  TokenizerFile(const std::string& text, std::string name) : name_(std::move(name)) {
    tokenizer_ = text::parse_tokenizer_json(text, name_);
    if (!supports_added_tokens(tokenizer_)) return;  // the tokenizer rejects it
    const JsonObjectReader in(tokenizer_, name_);
    for (const auto& [id, token] : read_added_tokens(in)) known_.emplace(token.content, std::pair{id, token});
    next_id_ = next_token_id(in);
    usable_ = true;
  }

  void add(const NamedToken& named) {
    if (!usable_ || named.token.content.empty()) return;
    if (const auto known = known_.find(named.token.content); known != known_.end())
      return check(named, known->second.first, &known->second.second);
    const auto& vocab = tokenizer_["model"]["vocab"];
    const auto in_model = vocab.find(named.token.content);
    const bool is_new = in_model == vocab.end();
    if (!is_new && !in_model->is_number_integer()) return;  // the tokenizer rejects it
    const int64_t id = is_new ? next_id_ : in_model->get<int64_t>();
    check(named, id, nullptr);
    if (is_new) ++next_id_;
    known_.emplace(named.token.content, std::pair{id, named.token});
    json entry = to_json(named.token);
    entry["id"] = id;
    tokenizer_["added_tokens"].push_back(std::move(entry));
    changed_ = true;
  }

  bool changed() const { return changed_; }
  std::string text() const { return tokenizer_.dump(); }

 private:
  void check(const NamedToken& named, int64_t id, const AddedToken* known) const {
    const std::string token = "'" + printable(named.token.content) + "'";
    if (named.id && *named.id != id)
      throw InputError(named.source + " and " + name_ + ": the token " + token + " has the id " +
                       std::to_string(*named.id) + " in the first and " + std::to_string(id) + " in the second" +
                       kSaveAgain);
    if (named.has_flags && known != nullptr && *known != named.token)
      throw InputError(named.source + " and " + name_ + ": the token " + token + " is " + flags_of(named.token) +
                       " in the first and " + flags_of(*known) + " in the second" + kSaveAgain);
  }

  std::string name_;
  json tokenizer_;
  std::map<std::string, std::pair<int64_t, AddedToken>> known_;
  int64_t next_id_ = 0;
  bool usable_ = false, changed_ = false;
};

}  // namespace

bool is_present(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found;
}

json read_optional_object(const std::string& file) {
  if (!is_present(file)) return json::object();
  json value = read_json(file);
  if (!value.is_object()) throw InputError(printable_path(file) + ": must be an object");
  return value;
}

std::vector<fs::path> additional_templates(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::path(folder) / kTemplateFolder, error))
    if (entry.path().extension() == ".jinja") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

json read_tokenizer_config(const std::string& folder) {
  json config = read_optional_object((fs::path(folder) / "tokenizer_config.json").string());
  add_templates(folder, config);
  if (const auto older = config.find("additional_special_tokens"); older != config.end()) {
    if (!config.contains("extra_special_tokens")) config["extra_special_tokens"] = *older;
    config.erase("additional_special_tokens");
  }
  add_special_tokens_map(folder, config);
  for (const std::string& key : text::special_token_keys(config)) config[key] = as_config_token(config[key]);
  return config;
}

std::string read_tokenizer_json(const std::string& folder, const json& tokenizer_config) {
  const std::string file = (fs::path(folder) / "tokenizer.json").string();
  std::string text = read_text(file, kMaxTokenizerBytes);
  const std::vector<NamedToken> named = named_tokens(folder, tokenizer_config);
  if (named.empty()) return text;
  TokenizerFile tokenizer(text, printable_path(file));
  for (const NamedToken& token : named) tokenizer.add(token);
  return tokenizer.changed() ? tokenizer.text() : text;
}

std::string read_tokenizer_bytes(const std::string& folder) {
  std::string bytes;
  for (const char* name : {"tokenizer.json", "special_tokens_map.json", "added_tokens.json"}) {
    const fs::path file = fs::path(folder) / name;
    if (is_present(file)) bytes += name + read_text(file.string(), kMaxTokenizerBytes);
  }
  return bytes;
}

}  // namespace peft
