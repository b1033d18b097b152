#pragma once

#include <functional>
#include <string>

#include "files/json_object_reader.h"
#include "text/tokenizer/budget.h"

namespace peft::text {

/// Converts text (well-formed UTF-8) to the text that is tokenized.
using Normalizer = std::function<std::string(std::string, TextBudget&)>;

/// Throws InputError, with the location, for a type or option that is not implemented.
Normalizer read_normalizer(const JsonObjectReader& in);

}  // namespace peft::text
