#pragma once
// What Python does with the values of a template: the engine, as cmake/patches/llama.cpp-jinja-metering.patch changes
// it, leaves operators, attributes, methods, filters and tests to these functions. They do what Jinja2 does, or throw.

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "jinja/runtime.h"

namespace peft::text {

using jinja::value;
using jinja::value_list;

/// Throws an error of the template, to which the engine adds the location.
[[noreturn]] void fail(const std::string& message);
/// Throws for what Jinja2 does and this program does not.
[[noreturn]] void fail_unsupported(const std::string& what);
std::string encode_character(char32_t c);

/// The type's name in Python.
std::string type_name(const value& of);
bool is_number(const value& of);  ///< also a boolean, as in Python
bool is_dict(const value& of);
bool is_list(const value& of);  ///< a list or a tuple, not what map() or keys() returns
bool is_text(const value& of);
std::string text_of(const value& of);  ///< of a string; throws for other types
int64_t integer_of(const value& of);   ///< of an integer or a boolean; throws for other types

value make_text(const std::string& text);
value make_integer(int64_t number);
value make_float(double number);
value make_boolean(bool truth);
value make_none();
/// The hint is the message of the error that using the value gives.
value make_undefined(const std::string& hint);
value make_list(value_list items);
value make_tuple(value_list items);
/// What Python's generators are: they can be iterated once, and have neither a length nor elements.
value make_generator(value_list items);
value make_texts(const std::vector<std::string>& texts);

std::string to_text(const value& of);  ///< str()
std::string to_repr(const value& of);  ///< repr()
bool truth(const value& of);           ///< bool()
bool equal(const value& a, const value& b);
bool less(const value& a, const value& b);
bool contains(const value& container, const value& item);
std::size_t length(const value& of);
/// What a loop over the value visits. Empties a generator.
value_list iterate(const value& over);

value binary_operation(const std::string& operation, const value& left, const value& right);
value unary_operation(const std::string& operation, const value& operand);
/// '…' % values
std::string format_percent(const std::string& format, const value_list& values);

value attribute(const value& object, const std::string& name);                               ///< object.name
value element(const value& object, const value& key);                                        ///< object[key]
value slice(const value& object, const value& start, const value& stop, const value& step);  ///< null: not given
/// A method of a string, list or dictionary; null if Python's type has none of that name.
value method(const value& object, const std::string& name);

value apply_filter(const std::string& name, const value& input, const jinja::func_args& arguments);
bool apply_test(const std::string& name, const value& input, const jinja::func_args& arguments);
/// range, namespace, …; null if there is no such function.
value global_function(const std::string& name);
/// Binds the parameters of a macro.
void bind_macro(const std::string& name, const jinja::statements& parameters, const jinja::func_args& arguments,
                jinja::context& scope);
/// Assigns to a name, or to each name of a tuple.
void unpack(const jinja::statement_ptr& target, const value& assigned, jinja::context& scope);

/// json.dumps(value, ensure_ascii=…, indent=…, separators=…, sort_keys=…)
struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false, lines = false;
  std::string indent, item_separator = ", ", key_separator = ": ";
};
std::string to_json(const value& of, const JsonStyle& style);

/// The arguments of a call.
class Arguments {
 public:
  Arguments(std::string function, const jinja::func_args& arguments);
  const value_list& positional() const { return positional_; }
  const std::vector<std::pair<std::string, value>>& named() const { return named_; }
  /// The arguments by the names of the parameters, of which the first `required` must be given; null for the others.
  /// Throws for arguments that do not fit.
  std::vector<value> bind(std::initializer_list<const char*> names, std::size_t required) const;
  const std::string& function() const { return function_; }

 private:
  std::string function_;
  value_list positional_;
  std::vector<std::pair<std::string, value>> named_;
};

}  // namespace peft::text
