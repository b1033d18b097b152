// The only user of toml++ (its header alone costs a second and a half of compiling).
#if __has_include(<toml++/toml.hpp>)
#include <toml++/toml.hpp>
#else
#include <toml++/toml.h>
#endif

#include "options/value.h"
#include "peft/error.h"

namespace peft::detail {
namespace {

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
    return convert_table(toml::parse(text), source);
  } catch (const toml::parse_error& error) {
    throw ConfigError(printable(source->name) + ":" + std::to_string(error.source().begin.line) + ":" +
                      std::to_string(error.source().begin.column) +
                      ": not TOML: " + printable(std::string(error.description()), 400));
  }
}

Value parse_assigned(const std::string& text, const std::shared_ptr<const Source>& source) {
  const bool bare = text.empty() || std::string_view("[{\"'").find(text.front()) == std::string_view::npos;
  try {
    const toml::table parsed = toml::parse("value = " + text + "\n");
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
