#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>

#include "files/json_object_reader.h"
#include "peft/files/pretrained_model.h"

namespace peft {

/// The members of an added token in a tokenizer.json, without its id.
nlohmann::json to_json(const AddedToken& token);
AddedToken read_added_token(const JsonObjectReader& in);
/// The added tokens of a tokenizer.json by id.
std::map<int64_t, AddedToken> read_added_tokens(const JsonObjectReader& tokenizer);
/// The id that HF tokenizers would assign to the next added token.
int64_t next_token_id(const JsonObjectReader& tokenizer);
/// Whether tokens can be added to a tokenizer.json: its model must have a vocabulary by token, as BPE has.
bool supports_added_tokens(const nlohmann::json& tokenizer);

}  // namespace peft
