#include "pretrained/added_token_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace peft {

using nlohmann::json;

json to_json(const AddedToken& token) {
  return {{"content", token.content}, {"special", token.special}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},   {"rstrip", token.rstrip},   {"normalized", token.normalized}};
}

AddedToken read_added_token(const JsonObjectReader& in) {
  AddedToken token{.content = in.text("content"),
                   .special = in.flag("special", false),
                   .single_word = in.flag("single_word", false),
                   .lstrip = in.flag("lstrip", false),
                   .rstrip = in.flag("rstrip", false)};
  token.normalized = in.flag("normalized", !token.special);
  return token;
}

std::map<int64_t, AddedToken> read_added_tokens(const JsonObjectReader& tokenizer) {
  std::map<int64_t, AddedToken> tokens;
  if (!tokenizer.has("added_tokens")) return tokens;
  for (const JsonObjectReader& in : tokenizer.each("added_tokens")) {
    const int64_t id = in.integer("id");
    if (id < 0 || id > INT32_MAX) in.fail("'id' must be from 0 to " + std::to_string(INT32_MAX));
    tokens.emplace(id, read_added_token(in));
  }
  return tokens;
}

int64_t next_token_id(const JsonObjectReader& tokenizer) {
  auto next = static_cast<int64_t>(tokenizer.at("model").object("vocab").size());
  const auto added = read_added_tokens(tokenizer);
  if (!added.empty()) next = std::max(next, added.rbegin()->first + 1);
  return next;
}

bool supports_added_tokens(const json& tokenizer) {
  const auto model = tokenizer.find("model");
  if (model == tokenizer.end() || !model->is_object()) return false;
  const auto vocab = model->find("vocab");
  return vocab != model->end() && vocab->is_object();
}

}  // namespace peft
