#pragma once

#include <functional>
#include <string>
#include <vector>

#include "files/json_object_reader.h"
#include "text/tokenizer/budget.h"

namespace peft::text {

/// Converts tokens as written in the vocabulary to pieces of text, which are then concatenated.
using Decoder = std::function<std::vector<std::string>(std::vector<std::string>, TextBudget&)>;

/// Throws InputError, with the location, for a type or option that is not implemented.
Decoder read_decoder(const JsonObjectReader& in);

}  // namespace peft::text
