#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace peft {

/// The text is not JSON from this byte on (counted from 1).
struct JsonSyntaxError {
  std::size_t position;
  std::string what;  ///< quotes the text: print it with printable() only
  bool number;       ///< a number that no double holds
};

/// JSON without doubt: nested at most `max_depth` deep, at most 2^23 values and no key twice in an object, else
/// InputError with `name` in front. Throws JsonSyntaxError for what is no JSON.
nlohmann::json read_strict_json(std::string_view text, const std::string& name, std::size_t max_depth);

}  // namespace peft
