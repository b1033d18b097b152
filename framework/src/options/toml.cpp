// The only user of toml++ (its header alone costs a second and a half of compiling).
#include <version>
#ifdef __cpp_lib_to_chars
#define TOML_FLOAT_CHARCONV 1  // else numbers are read by a stream, which takes missing memory for a bad number
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

/// toml++ takes down by recursion what it has built: tables within tables, of which a dotted key makes many, would end
/// in a stack overflow.
constexpr int max_depth = 100;

/// Behind the string that begins at `i`; its line's or the text's end if it does not end.
std::size_t skip_string(std::string_view text, std::size_t i) {
  const char quote = text[i];
  const std::string three(3, quote);
  const bool long_form = text.substr(i, 3) == three;
  for (i += long_form ? 3 : 1; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (long_form && text.substr(i, 3) == three) {
      const std::size_t end = text.find_first_not_of(quote, i + 3);
      return std::min({end, i + 5, text.size()});  // two quotes may stand before the closing three
    } else if (!long_form && (text[i] == quote || text[i] == '\n')) {
      return text[i] == quote ? i + 1 : i;
    }
  }
  return text.size();
}

/// How deep what stands at a place lies: the brackets around it, and the dots of the keys it belongs to.
class Depth {
 public:
  int of(char c) {
    if (c == '[' || c == '{') around_.push_back(++depth_);
    if ((c == ']' || c == '}') && !around_.empty()) around_.pop_back();
    if (c == '.') ++depth_;
    if (c == ',' || c == '\n' || c == ']' || c == '}') depth_ = around_.empty() ? 0 : around_.back();
    return depth_;
  }

 private:
  std::vector<int> around_;
  int depth_ = 0;
};

/// Throws ConfigError for what toml++ must not see.
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
      if (depth.of(c) > max_depth)
        throw ConfigError(printable(source.name, 4096) + ":" + std::to_string(line) + ": nested deeper than " +
                          std::to_string(max_depth));
      line += c == '\n';
      ++i;
    }
  }
}

toml::table parse_checked(const std::string& text, const Source& source) {
  check_depth(text, source);
  return toml::parse(text);
}

Place place_of(const toml::source_region& region, const std::shared_ptr<const Source>& source) {
  if (source->order > 0) return {source};  // a --set is one line, shown whole
  return {source, region.begin.line, region.begin.column};
}

Entries convert_table(const toml::table& table, const std::shared_ptr<const Source>& source);

Value convert(const toml::node& node, const std::shared_ptr<const Source>& source) {
  Value out{Value::Other{"a date or time"}, place_of(node.source(), source)};
  if (const auto* table = node.as_table()) {
    out.data = convert_table(*table, source);
  } else if (const auto* array = node.as_array()) {
    Values values;
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
    entries.push_back({std::string(key.str()), place_of(key.source(), source), convert(node, source)});
  return entries;
}

}  // namespace

Entries parse_toml(const std::string& text, const std::shared_ptr<const Source>& source) {
  try {
    return convert_table(parse_checked(text, *source), source);
  } catch (const toml::parse_error& error) {
    throw ConfigError(printable(source->name, 4096) + ":" + std::to_string(error.source().begin.line) + ":" +
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
