// Methods of strings, lists and dictionaries, functions, and the arguments of calls.
#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "text/chat_template/template_text.h"
#include "text/chat_template/template_values.h"

namespace peft::text {

namespace {

using jinja::is_val;
using jinja::mk_val;
using Method = value (*)(const value& self, const Arguments& arguments);
using Methods = std::map<std::string, Method>;

std::optional<std::string> optional_text(const value& of) {
  if (!of || of->is_none()) return std::nullopt;
  return text_of(of);
}

template <bool left, bool right>
value strip(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"chars"}, 0);
  return make_text(python_strip(text_of(self), optional_text(given[0]), left, right));
}

template <std::string (*change)(const std::string&)>
value changed(const value& self, const Arguments& arguments) {
  arguments.bind({}, 0);
  return make_text(change(text_of(self)));
}

template <auto split>
value split_by(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"sep", "maxsplit"}, 0);
  return make_texts(split(text_of(self), optional_text(given[0]), given[1] ? integer_of(given[1]) : -1));
}

value split_lines(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"keepends"}, 0);
  return make_texts(python_splitlines(text_of(self), given[0] && truth(given[0])));
}

template <bool start>
value has_affix(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"affix"}, 1);
  const std::string text = text_of(self);
  const bool is_tuple = is_val<jinja::value_tuple>(given[0]);
  for (const value& affix : is_tuple ? given[0]->as_array() : value_list{given[0]})
    if (const std::string part = text_of(affix); start ? text.starts_with(part) : text.ends_with(part))
      return make_boolean(true);
  return make_boolean(false);
}

template <bool start>
value remove_affix(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"affix"}, 1);
  const std::string text = text_of(self), part = text_of(given[0]);
  if (!(start ? text.starts_with(part) : text.ends_with(part))) return self;
  return make_text(start ? text.substr(part.size()) : text.substr(0, text.size() - part.size()));
}

value replace_text(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"old", "new", "count"}, 2);
  return make_text(
      python_replace(text_of(self), text_of(given[0]), text_of(given[1]), given[2] ? integer_of(given[2]) : -1));
}

template <bool last>
value find_text(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"sub"}, 1);
  const std::string text = text_of(self), part = text_of(given[0]);
  charge_search(text.size(), part.size());
  const std::size_t at = last ? text.rfind(part) : text.find(part);
  if (at == text.npos) return make_integer(-1);
  return make_integer(static_cast<int64_t>(count_characters(text.substr(0, at))));
}

value count_text(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"sub"}, 1);
  const std::string text = text_of(self), part = text_of(given[0]);
  if (part.empty()) return make_integer(static_cast<int64_t>(count_characters(text)) + 1);
  charge_search(text.size(), part.size());
  int64_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++count;
  return make_integer(count);
}

value join_texts(const value& self, const Arguments& arguments) {
  const std::string separator = text_of(self);
  std::string out;
  bool first = true;
  for (const value& item : iterate(arguments.bind({"iterable"}, 1)[0])) {
    if (!std::exchange(first, false)) out += separator;
    out += text_of(item);
    check_value_size(out.size());
  }
  return make_text(out);
}

template <bool last>
value partition(const value& self, const Arguments& arguments) {
  const std::string text = text_of(self), separator = text_of(arguments.bind({"sep"}, 1)[0]);
  if (separator.empty()) fail("empty separator");
  charge_search(text.size(), separator.size());
  const std::size_t at = last ? text.rfind(separator) : text.find(separator);
  if (at == text.npos)
    return make_tuple(last ? value_list{make_text(""), make_text(""), self}
                           : value_list{self, make_text(""), make_text("")});
  return make_tuple(
      {make_text(text.substr(0, at)), make_text(separator), make_text(text.substr(at + separator.size()))});
}

template <int (*belongs)(int)>
value all_belong(const value& self, const Arguments& arguments) {
  arguments.bind({}, 0);
  const std::string text = text_of(self);
  bool all = !text.empty();
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) fail_unsupported("this test of text that is not ASCII");
    all = all && belongs(static_cast<unsigned char>(c)) != 0;
  }
  return make_boolean(all);
}

int is_digit(int c) { return c >= '0' && c <= '9'; }
int is_letter(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
int is_alphanumeric(int c) { return is_digit(c) != 0 || is_letter(c) != 0; }
int is_ascii_space(int c) { return is_python_space(static_cast<char32_t>(c)); }

/// What is between the braces of a replacement field.
value format_argument(const std::string& field, std::size_t& next, const Arguments& arguments) {
  std::size_t index = next;
  if (field.empty()) {
    ++next;
  } else if (std::all_of(field.begin(), field.end(), [](char c) { return is_digit(c) != 0; }) && field.size() < 6) {
    index = std::stoul(field);
  } else {
    for (const auto& [name, given] : arguments.named())
      if (name == field) return given;
    fail_unsupported("the replacement field '{" + field + "}'");
  }
  if (index >= arguments.positional().size()) fail("format() has too few arguments");
  return arguments.positional()[index];
}

value format_text(const value& self, const Arguments& arguments) {
  const std::string format = text_of(self);
  std::string out;
  std::size_t next = 0;
  for (std::size_t at = 0; at < format.size(); ++at) {
    const char c = format[at];
    if ((c == '{' || c == '}') && at + 1 < format.size() && format[at + 1] == c) {
      out += format[at++];
    } else if (c == '{') {
      const std::size_t end = format.find('}', at);
      if (end == format.npos) fail("expected '}' before end of string");
      out += to_text(format_argument(format.substr(at + 1, end - at - 1), next, arguments));
      at = end;
    } else if (c == '}') {
      fail("single '}' encountered in format string");
    } else {
      out += c;
    }
    check_value_size(out.size());
  }
  return make_text(out);
}

value dict_get(const value& self, const Arguments& arguments) {
  const auto given = arguments.bind({"key", "default"}, 1);
  if (!given[0]->is_hashable()) fail("unhashable type: '" + type_name(given[0]) + "'");
  if (self->has_key(given[0])) return self->at(given[0]);
  return given[1] ? given[1] : make_none();
}

/// A view is a list that cannot be printed, indexed or compared.
template <typename Item>
value make_view(const value& self, const Arguments& arguments, const Item& item) {
  arguments.bind({}, 0);
  auto view = mk_val<jinja::value_array>();
  for (const auto& pair : self->as_ordered_object()) view->push_back(item(pair));
  view->kind = jinja::value_array_t::kind_t::view;
  return view;
}

value dict_keys(const value& self, const Arguments& arguments) {
  return make_view(self, arguments, [](const auto& pair) { return pair.first; });
}
value dict_values(const value& self, const Arguments& arguments) {
  return make_view(self, arguments, [](const auto& pair) { return pair.second; });
}
value dict_items(const value& self, const Arguments& arguments) {
  return make_view(self, arguments, [](const auto& pair) { return make_tuple({pair.first, pair.second}); });
}

value dict_copy(const value& self, const Arguments& arguments) {
  arguments.bind({}, 0);
  return mk_val<jinja::value_object>(self->as_ordered_object());
}

value list_copy(const value& self, const Arguments& arguments) {
  arguments.bind({}, 0);
  return make_list(self->as_array());
}

value list_count(const value& self, const Arguments& arguments) {
  const value wanted = arguments.bind({"value"}, 1)[0];
  const value_list& items = self->as_array();
  return make_integer(std::count_if(items.begin(), items.end(),
                                    [&](const value& item) { return item == wanted || equal(item, wanted); }));
}

value list_index(const value& self, const Arguments& arguments) {
  const value wanted = arguments.bind({"value"}, 1)[0];
  const value_list& items = self->as_array();
  const auto found = std::find_if(items.begin(), items.end(),
                                  [&](const value& item) { return item == wanted || equal(item, wanted); });
  if (found == items.end()) fail(to_repr(wanted) + " is not in list");
  return make_integer(found - items.begin());
}

const Methods& text_methods() {
  static const Methods all = {{"upper", changed<python_upper>},
                              {"lower", changed<python_lower>},
                              {"capitalize", changed<python_capitalize>},
                              {"title", changed<python_title>},
                              {"strip", strip<true, true>},
                              {"lstrip", strip<true, false>},
                              {"rstrip", strip<false, true>},
                              {"split", split_by<python_split>},
                              {"rsplit", split_by<python_rsplit>},
                              {"splitlines", split_lines},
                              {"startswith", has_affix<true>},
                              {"endswith", has_affix<false>},
                              {"removeprefix", remove_affix<true>},
                              {"removesuffix", remove_affix<false>},
                              {"replace", replace_text},
                              {"find", find_text<false>},
                              {"rfind", find_text<true>},
                              {"count", count_text},
                              {"join", join_texts},
                              {"partition", partition<false>},
                              {"rpartition", partition<true>},
                              {"isdigit", all_belong<is_digit>},
                              {"isdecimal", all_belong<is_digit>},
                              {"isnumeric", all_belong<is_digit>},
                              {"isalpha", all_belong<is_letter>},
                              {"isalnum", all_belong<is_alphanumeric>},
                              {"isspace", all_belong<is_ascii_space>},
                              {"format", format_text}};
  return all;
}

const Methods& dict_methods() {
  static const Methods all = {
      {"get", dict_get}, {"keys", dict_keys}, {"values", dict_values}, {"items", dict_items}, {"copy", dict_copy}};
  return all;
}

const Methods& list_methods() {
  static const Methods all = {{"copy", list_copy}, {"count", list_count}, {"index", list_index}};
  return all;
}

/// Methods that Python's types have and that are not implemented. Those that change a value raise in transformers, too.
const std::set<std::string>& other_methods(const value& object) {
  static const std::set<std::string> text = {"casefold", "center",   "encode",       "expandtabs", "format_map",
                                             "index",    "isascii",  "isidentifier", "islower",    "isprintable",
                                             "istitle",  "isupper",  "ljust",        "maketrans",  "rindex",
                                             "rjust",    "swapcase", "translate",    "zfill"};
  static const std::set<std::string> list = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
  static const std::set<std::string> dict = {"clear", "fromkeys", "pop", "popitem", "setdefault", "update"};
  static const std::set<std::string> number = {
      "as_integer_ratio", "bit_count", "bit_length", "conjugate",  "denominator", "from_bytes", "fromhex",
      "from_number",      "hex",       "imag",       "is_integer", "numerator",   "real",       "to_bytes"};
  static const std::set<std::string> other = {"close", "gi_code", "gi_frame", "gi_running", "gi_yieldfrom",
                                              "send",  "throw",   "mapping",  "isdisjoint", "start",
                                              "stop",  "step",    "count",    "index",      "gi_suspended"};
  static const std::set<std::string> none;
  if (is_text(object)) return text;
  if (is_list(object)) return list;
  if (is_dict(object)) return dict;
  if (is_number(object)) return number;
  return is_val<jinja::value_array>(object) ? other : none;
}

value make_function(const std::string& name, std::function<value(const jinja::func_args&)> function) {
  return mk_val<jinja::value_func>(name, jinja::func_handler(std::move(function)));
}

/// A dictionary's items or keyword arguments as the attributes of a new object.
value make_namespace(const jinja::func_args& in) {
  const Arguments arguments("namespace", in);
  auto made = mk_val<jinja::value_object>();
  made->has_builtins = false;
  made->is_namespace = true;
  if (arguments.positional().size() > 1) fail("namespace() takes at most one positional argument");
  for (const value& dict : arguments.positional()) {
    if (!is_dict(dict)) fail_unsupported("namespace() of what is not a dictionary");
    for (const auto& [key, item] : dict->as_ordered_object()) made->insert(key, item);
  }
  for (const auto& [key, item] : arguments.named()) made->insert(key, item);
  return made;
}

value make_dict(const jinja::func_args& in) {
  const Arguments arguments("dict", in);
  auto made = mk_val<jinja::value_object>();
  if (arguments.positional().size() > 1) fail("dict expected at most 1 argument");
  for (const value& dict : arguments.positional()) {
    if (!is_dict(dict)) fail_unsupported("dict() of what is not a dictionary");
    for (const auto& [key, item] : dict->as_ordered_object()) made->insert(key, item);
  }
  for (const auto& [key, item] : arguments.named()) made->insert(key, item);
  return made;
}

value raise_exception(const jinja::func_args& in) {
  fail("Jinja Exception: " + to_text(Arguments("raise_exception", in).bind({"message"}, 1)[0]));
}

}  // namespace

Arguments::Arguments(std::string function, const jinja::func_args& arguments) : function_(std::move(function)) {
  for (const value& argument : arguments.get_args()) {
    if (const auto* keyword = jinja::cast_val<jinja::value_kwarg>(argument)) {
      named_.emplace_back(keyword->key, keyword->val);
    } else {
      if (!named_.empty()) fail(function_ + "(): positional argument follows keyword argument");
      positional_.push_back(argument);
    }
  }
}

std::vector<value> Arguments::bind(std::initializer_list<const char*> names, std::size_t required) const {
  if (positional_.size() > names.size())
    fail(function_ + "() takes " + std::to_string(names.size()) + " arguments, but " +
         std::to_string(positional_.size()) + " were given");
  std::vector<value> bound(names.size());
  std::copy(positional_.begin(), positional_.end(), bound.begin());
  for (const auto& [name, given] : named_) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) fail(function_ + "() has no argument '" + name + "'");
    value& place = bound[static_cast<std::size_t>(found - names.begin())];
    if (place) fail(function_ + "() got multiple values for argument '" + name + "'");
    place = given;
  }
  for (std::size_t i = 0; i < required; ++i)
    if (!bound[i]) fail(function_ + "() needs the argument '" + std::string(names.begin()[i]) + "'");
  return bound;
}

value method(const value& object, const std::string& name) {
  static const Methods none;
  const Methods& methods = is_text(object)   ? text_methods()
                           : is_dict(object) ? dict_methods()
                           : is_list(object) ? list_methods()
                                             : none;
  const auto found = methods.find(name);
  if (found == methods.end() || (name == "copy" && is_val<jinja::value_tuple>(object))) {
    if (other_methods(object).contains(name))
      fail_unsupported("the method '" + name + "' of '" + type_name(object) + "'");
    return nullptr;
  }
  return make_function(name, [object, name, call = found->second](const jinja::func_args& arguments) {
    return call(object, Arguments(name, arguments));
  });
}

value global_function(const std::string& name) {
  if (name == "lipsum" || name == "cycler" || name == "joiner") fail_unsupported(name + "()");
  if (name == "self") fail_unsupported("'self'");
  if (name == "raise_exception") return make_function(name, raise_exception);
  if (name == "namespace") return make_function(name, make_namespace);
  if (name == "dict") return make_function(name, make_dict);
  return nullptr;
}

void bind_macro(const std::string& name, const jinja::statements& parameters, const jinja::func_args& in,
                jinja::context& scope) {
  const Arguments arguments(name, in);
  if (arguments.positional().size() > parameters.size())
    fail("macro '" + name + "' takes not more than " + std::to_string(parameters.size()) + " argument(s)");
  std::map<std::string, value> named;
  for (const auto& [key, given] : arguments.named())
    if (!named.emplace(key, given).second) fail("macro '" + name + "' got multiple values for '" + key + "'");
  scope.set_val("caller", make_undefined("'caller' is undefined"));
  scope.set_val("varargs", make_tuple({}));
  scope.set_val("kwargs", mk_val<jinja::value_object>());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto* keyword = jinja::cast_stmt<jinja::keyword_argument_expression>(parameters[i]);
    const auto* parameter = jinja::cast_stmt<jinja::identifier>(keyword ? keyword->key : parameters[i]);
    if (parameter == nullptr) fail("a parameter of the macro '" + name + "' is not a name");
    const auto given = named.find(parameter->val);
    const bool is_positional = i < arguments.positional().size();
    if (given != named.end() && is_positional)
      fail("macro '" + name + "' got multiple values for '" + given->first + "'");
    if (is_positional)
      scope.set_val(parameter->val, arguments.positional()[i]);
    else if (given != named.end())
      scope.set_val(parameter->val, given->second);
    else
      scope.set_val(parameter->val, keyword ? keyword->val->execute(scope)
                                            : make_undefined("parameter '" + parameter->val + "' was not provided"));
    if (given != named.end()) named.erase(given);
  }
  if (const auto caller = named.find("caller"); caller != named.end()) {
    scope.set_val("caller", caller->second);
    named.erase(caller);
  }
  if (!named.empty()) fail("macro '" + name + "' takes no keyword argument '" + named.begin()->first + "'");
}

void unpack(const jinja::statement_ptr& target, const value& assigned, jinja::context& scope) {
  if (const auto* name = jinja::cast_stmt<jinja::identifier>(target)) return scope.set_val(name->val, assigned);
  const auto* tuple = jinja::cast_stmt<jinja::tuple_literal>(target);
  if (tuple == nullptr) fail("cannot assign to " + target->type());
  const value_list items = iterate(assigned);
  if (items.size() != tuple->val.size())
    fail(items.size() < tuple->val.size() ? "not enough values to unpack" : "too many values to unpack");
  for (std::size_t i = 0; i < items.size(); ++i) unpack(tuple->val[i], items[i], scope);
}

}  // namespace peft::text
