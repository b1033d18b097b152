#pragma once

#include <functional>
#include <string>
#include <vector>

#include "files/json_object_reader.h"
#include "text/tokenizer/budget.h"

namespace peft::text {

/// A piece of normalized text. Tokens do not cross its boundaries.
struct Piece {
  std::string text;
  bool first;  ///< starts at the beginning of the input
};

using PreTokenizer = std::function<std::vector<Piece>(std::vector<Piece>, TextBudget&)>;

/// Throws InputError, with the location, for a type or option that is not implemented.
PreTokenizer read_pre_tokenizer(const JsonObjectReader& in);

/// Whether the pre-tokenizer prepends "▁" to pieces.
enum class PrependScheme { always, first, never };
/// Options that Metaspace has both as a pre-tokenizer and as a decoder.
struct Metaspace {
  std::string replacement;
  PrependScheme scheme;
  bool split;
};
Metaspace read_metaspace(const JsonObjectReader& in);

}  // namespace peft::text
