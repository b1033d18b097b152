#pragma once

#include <functional>
#include <string>

#include "text/json_fields.h"
#include "text/tokenizer/budget.h"

namespace peft::text {

/// Text (well-formed UTF-8) to the text that is tokenized.
using Normalizer = std::function<std::string(std::string, TextBudget&)>;

/// Throws InputError, with place, for a type or option that is not implemented.
Normalizer read_normalizer(const Fields& in);

}  // namespace peft::text
