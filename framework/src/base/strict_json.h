#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace peft {

/// Position and cause of a syntax error.
struct JsonSyntaxError {
  std::size_t position;  ///< of the first byte that is not JSON, counted from 1
  std::string what;      ///< quotes the text: print it only with printable()
  bool number;           ///< a number that is out of range for a double
};

/// Parses text that every JSON reader understands in the same way. Throws JsonSyntaxError if it is not JSON, and
/// InputError, starting with `name`, if it starts with a byte order mark, is nested deeper than `max_depth`, has more
/// than 2^23 values or a duplicate key in an object.
nlohmann::json read_strict_json(std::string_view text, const std::string& name, std::size_t max_depth);
/// The same, with the keys of an object in the order of the text.
nlohmann::ordered_json read_ordered_json(std::string_view text, const std::string& name, std::size_t max_depth);

}  // namespace peft
