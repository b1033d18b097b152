#include "peft/text/text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "text/tokenizer/tokenizer_config.h"

namespace peft {

namespace {

using nlohmann::json;
using text::special_token;
using text::template_source;

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
    if (!id) throw InputError(path + ": tokenizer: eos_token '" + printable(eos_token) + "' is not in the vocabulary");
    ids.push_back(*id);
  }
  if (!add_eos_ids(model.generation_config(), "generation_config.json", path, ids))
    add_eos_ids(model.config(), "config.json", path, ids);
  return ids;
}

}  // namespace

TextPipeline load_text(const PretrainedModel& model) {
  const json& config = model.tokenizer_config();
  const std::string path = printable_path(model.path());
  TextPipeline text;
  text.tokenizer = Tokenizer::from_json(model.tokenizer_json(), path + ": tokenizer");
  const std::string bos_token = special_token(config, "bos_token", path);
  const std::string eos_token = special_token(config, "eos_token", path);
  const std::string source = template_source(config, path);
  if (!source.empty()) try {
      text.chat_template = ChatTemplate::parse(source, bos_token, eos_token);
    } catch (const InputError& error) {
      throw InputError(path + ": " + error.what());
    }
  text.eos_ids = eos_ids(model, *text.tokenizer, eos_token);
  return text;
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
