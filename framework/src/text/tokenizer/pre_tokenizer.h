#pragma once

#include <functional>
#include <string>
#include <vector>

#include "text/json_fields.h"
#include "text/tokenizer/budget.h"

namespace peft::text {

/// A stretch of normalized text that no token may cross.
struct Piece {
  std::string text;
  bool first;  ///< begins where the whole input begins
};

using PreTokenizer = std::function<std::vector<Piece>(std::vector<Piece>, TextBudget&)>;

/// Throws InputError, with place, for a type or option that is not implemented.
PreTokenizer read_pre_tokenizer(const Fields& in);

/// When a word gets a «▁» before it.
enum class PrependScheme { always, first, never };
/// The options that Metaspace has both as pre-tokenizer and as decoder.
struct Metaspace {
  std::string replacement;
  PrependScheme scheme;
  bool split;
};
Metaspace read_metaspace(const Fields& in);

}  // namespace peft::text
