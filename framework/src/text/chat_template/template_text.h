#pragma once
// Methods of Python's str over UTF-8. What they would do differently from Python, they refuse.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace peft::text {

/// Whether Python's str.isspace() is true for the character.
bool is_python_space(char32_t c);
std::size_t count_characters(std::string_view text);
/// Offsets of the characters in bytes, and the size as the last element.
std::vector<std::size_t> character_offsets(std::string_view text);

std::string python_upper(const std::string& text);
std::string python_lower(const std::string& text);
std::string python_capitalize(const std::string& text);
/// str.title(); ASCII only.
std::string python_title(const std::string& text);
/// The filter `title`, which is not str.title().
std::string jinja_title(const std::string& text);
std::string python_strip(const std::string& text, const std::optional<std::string>& characters, bool left, bool right);
/// Without a separator, splits at runs of whitespace. A negative `limit` does not limit.
std::vector<std::string> python_split(const std::string& text, const std::optional<std::string>& separator,
                                      int64_t limit);
std::vector<std::string> python_rsplit(const std::string& text, const std::optional<std::string>& separator,
                                       int64_t limit);
std::vector<std::string> python_splitlines(const std::string& text, bool keep_ends);
std::string python_replace(const std::string& text, const std::string& old, const std::string& with, int64_t limit);
std::string python_repr(const std::string& text);
/// repr() of a float: the shortest digits that read back as the same number.
std::string python_repr(double number);
/// A JSON string, as json.dumps() writes it.
std::string json_string(const std::string& text, bool ensure_ascii);
/// int(text); nothing if it is not an integer. Throws beyond 64 bits.
std::optional<int64_t> python_int(const std::string& text);
/// float(text); nothing if it is not a number.
std::optional<double> python_float(const std::string& text);

}  // namespace peft::text
