#include "peft/text/text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/pretrained_model.h"
#include "text/tokenizer/tokenizer_config.h"
#include "text/tokenizer/tokenizer_json.h"
#include "text/unicode.h"

namespace peft {

namespace {

using nlohmann::json;
using text::special_token;
using text::special_tokens;
using text::template_source;
using text::tokenizer_config_name;
using text::tokenizer_name;

/// Appends the ids in `eos_token_id`, an id or a list. False if it is not set.
bool add_eos_ids(const json& config, const char* file, const std::string& path, std::vector<int64_t>& ids) {
  const auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return false;
  const json all = found->is_array() ? *found : json::array({*found});
  if (all.size() > 1000) throw InputError(path + ": " + file + ": 'eos_token_id' lists more than 1000 ids");
  for (const json& id : all) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      throw InputError(path + ": " + file + ": 'eos_token_id' must be a token id or a list of them");
    if (std::find(ids.begin(), ids.end(), id.get<int64_t>()) == ids.end()) ids.push_back(id.get<int64_t>());
  }
  return !all.empty();
}

std::vector<int64_t> eos_ids(const PretrainedModel& model, const Tokenizer& tokenizer, const std::string& eos_token) {
  const std::string path = printable_path(model.path());
  std::vector<int64_t> ids;
  if (!eos_token.empty()) {
    const auto id = tokenizer.id(eos_token);
    if (!id)
      throw InputError(tokenizer_config_name(model.path()) + ": eos_token '" + printable(eos_token) +
                       "' is not in the vocabulary of " + tokenizer_name(model.path()));
    ids.push_back(*id);
  }
  if (!add_eos_ids(model.generation_config(), "generation_config.json", path, ids))
    add_eos_ids(model.config(), "config.json", path, ids);
  return ids;
}

}  // namespace

TextPipeline load_text(const PretrainedModel& model) {
  const json& config = model.tokenizer_config();
  const std::string name = tokenizer_config_name(model.path());
  TextPipeline text;
  text.tokenizer = Tokenizer::from_json(model.tokenizer_json(), tokenizer_name(model.path()));
  const std::string eos_token = special_token(config, "eos_token", name);
  const std::string source = template_source(config, name);
  if (!source.empty()) try {
      text.chat_template = ChatTemplate::parse(source, special_tokens(config, name));
    } catch (const InputError& error) {
      throw InputError(printable_path(model.path()) + ": " + error.what());
    }
  text.eos_ids = eos_ids(model, *text.tokenizer, eos_token);
  return text;
}

std::string find_chat_template(const PretrainedModel& model, const std::string& given) {
  if (given.ends_with(".jinja")) {
    std::string source = read_text(given, std::size_t{1} << 20);
    if (text::find_bad_utf8(source) != source.npos) throw InputError(printable_path(given) + ": is not UTF-8");
    try {
      ChatTemplate::parse(source, {});
    } catch (const InputError& error) {
      throw InputError(printable_path(given) + ": " + error.what());
    }
    return source;
  }
  const auto templates = text::named_templates(model.tokenizer_config(), tokenizer_config_name(model.path()));
  if (const auto found = templates.find(given); found != templates.end()) return found->second;
  throw ConfigError("chat_template '" + printable(given) + "' is neither a .jinja file nor a template of " +
                    printable_path(model.path()) + ", which has " + text::listed_names(templates));
}

const TextPipeline& LazyText::get() const {
  if (!text_) text_ = load_text(*model_);
  return *text_;
}

std::string LazyText::fingerprint() const {
  Digest digest;
  digest.add(model_->tokenizer_bytes());
  for (const json* file : {&model_->tokenizer_config(), &model_->generation_config(), &model_->config()})
    digest.add(file->dump());
  return digest.hex();
}

}  // namespace peft
