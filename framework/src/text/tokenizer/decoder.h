#pragma once

#include <functional>
#include <string>
#include <vector>

#include "text/json_fields.h"
#include "text/tokenizer/budget.h"

namespace peft::text {

/// Tokens as in the vocabulary to pieces of text; the text is all of them joined.
using Decoder = std::function<std::vector<std::string>(std::vector<std::string>, TextBudget&)>;

/// Throws InputError, with place, for a type or option that is not implemented.
Decoder read_decoder(const Fields& in);

}  // namespace peft::text
