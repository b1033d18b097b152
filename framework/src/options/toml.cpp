// The only source that includes toml++, because its header alone takes 1.5 s to compile.
#include <version>
#ifdef __cpp_lib_to_chars
#define TOML_FLOAT_CHARCONV 1  // streams, the default, report a failed allocation as an invalid number
#endif
#if __has_include(<toml++/toml.hpp>)
#include <toml++/toml.hpp>
#else
#include <toml++/toml.h>
#endif

#include <algorithm>

#include "options/value.h"
#include "peft/base/error.h"

namespace peft::detail {
namespace {

/// toml++ destroys nested tables by recursion, so that deep nesting, which a dotted key creates cheaply, would overflow
/// the stack.
constexpr int kMaxDepth = 100;

/// Index after the string that starts at `i`. If the string has no end: the end of its line or of the text.
std::size_t skip_string(std::string_view text, std::size_t i) {
  const char quote = text[i];
  const std::string three(3, quote);
  const bool long_form = text.substr(i, 3) == three;
  for (i += long_form ? 3 : 1; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (long_form && text.substr(i, 3) == three) {
      const std::size_t end = text.find_first_not_of(quote, i + 3);
      return std::min({end, i + 5, text.size()});  // two quotes can precede the closing three
    } else if (!long_form && (text[i] == quote || text[i] == '\n')) {
      return text[i] == quote ? i + 1 : i;
    }
  }
  return text.size();
}

/// Nesting depth of a value: the brackets around it and the dots in its keys.
class Depth {
 public:
  /// Depth after the next character, which is not part of a string or a comment.
  int advance(char c) {
    if (c == '[' || c == '{') open_brackets_.push_back(++depth_);
    if ((c == ']' || c == '}') && !open_brackets_.empty()) open_brackets_.pop_back();
    if (c == '.') ++depth_;
    if (c == ',' || c == '\n' || c == ']' || c == '}') depth_ = open_brackets_.empty() ? 0 : open_brackets_.back();
    return depth_;
  }

 private:
  std::vector<int> open_brackets_;  ///< the depth at each
  int depth_ = 0;
};

/// Throws ConfigError if the text is nested too deeply for toml++.
void check_depth(std::string_view text, const Source& source) {
  Depth depth;
  int line = 1;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '"' || c == '\'') {
      const std::size_t end = skip_string(text, i);
      line += static_cast<int>(std::count(text.begin() + i, text.begin() + end, '\n'));
      i = end;
    } else if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
    } else {
      if (depth.advance(c) > kMaxDepth)
        throw ConfigError(printable_path(source.name) + ":" + std::to_string(line) + ": nested deeper than " +
                          std::to_string(kMaxDepth) + " levels");
      line += c == '\n';
      ++i;
    }
  }
}

toml::table parse_checked(const std::string& text, const Source& source) {
  check_depth(text, source);
  return toml::parse(text);
}

SourceLocation location_of(const toml::source_region& region, const std::shared_ptr<const Source>& source) {
  if (source->is_assignment) return {source};
  return {source, region.begin.line, region.begin.column};
}

Entries convert_table(const toml::table& table, const std::shared_ptr<const Source>& source);

Value convert(const toml::node& node, const std::shared_ptr<const Source>& source) {
  Value out{Value::Other{"a date or time"}, location_of(node.source(), source)};
  if (const auto* table = node.as_table()) {
    out.data = convert_table(*table, source);
  } else if (const auto* array = node.as_array()) {
    ValueList values;
    for (const toml::node& element : *array) values.push_back(convert(element, source));
    out.data = std::move(values);
  } else if (const auto* text = node.as_string()) {
    out.data = text->get();
  } else if (const auto* integer = node.as_integer()) {
    out.data = int64_t{integer->get()};
  } else if (const auto* number = node.as_floating_point()) {
    out.data = number->get();
  } else if (const auto* boolean = node.as_boolean()) {
    out.data = boolean->get();
  }
  return out;
}

Entries convert_table(const toml::table& table, const std::shared_ptr<const Source>& source) {
  Entries entries;
  for (const auto& [key, node] : table)
    entries.push_back({std::string(key.str()), location_of(key.source(), source), convert(node, source)});
  return entries;
}

}  // namespace

Entries parse_toml(const std::string& text, const std::shared_ptr<const Source>& source) {
  try {
    return convert_table(parse_checked(text, *source), source);
  } catch (const toml::parse_error& error) {
    throw ConfigError(printable_path(source->name) + ":" + std::to_string(error.source().begin.line) + ":" +
                      std::to_string(error.source().begin.column) +
                      ": not TOML: " + printable(std::string(error.description()), 400));
  }
}

Value parse_assigned(const std::string& text, const std::shared_ptr<const Source>& source) {
  const bool bare = text.empty() || std::string_view("[{\"'").find(text.front()) == std::string_view::npos;
  try {
    const toml::table parsed = parse_checked("value = " + text + "\n", *source);
    const toml::node* node = parsed.get("value");
    // A second line of `text` would be a second key.
    if (parsed.size() == 1 && node != nullptr &&
        !(bare && (node->is_date() || node->is_time() || node->is_date_time()))) {
      return convert(*node, source);
    }
  } catch (const toml::parse_error& error) {
    if (!bare)
      throw ConfigError(printable(source->name) +
                        ": the value is not TOML: " + printable(std::string(error.description()), 400));
  }
  return {text, {source}};
}

}  // namespace peft::detail
