#include "text/chat_template/template_values.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "text/chat_template/template_text.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

using jinja::is_val;
using jinja::mk_val;
using Kind = jinja::value_array_t::kind_t;

Kind kind_of(const value& array) { return jinja::cast_val<jinja::value_array>(array)->kind; }

bool is_tuple(const value& of) { return is_val<jinja::value_tuple>(of); }
bool is_array(const value& of) { return is_val<jinja::value_array>(of); }
bool is_generator(const value& of) { return is_array(of) && kind_of(of) == Kind::generator; }
bool is_float(const value& of) { return is_val<jinja::value_float>(of); }

double double_of(const value& of) { return is_float(of) ? of->val_flt : static_cast<double>(of->val_int); }
/// Holds every 64-bit integer and every double exactly.
long double exact(const value& of) {
  return is_float(of) ? static_cast<long double>(of->val_flt) : static_cast<long double>(of->val_int);
}

void fail_if_undefined(const value& of) {
  if (!of->is_undefined()) return;
  const std::string& hint = jinja::cast_val<jinja::value_undefined>(of)->hint;
  fail(hint.empty() ? "the value is undefined" : hint);
}

[[noreturn]] void fail_operands(const std::string& operation, const value& left, const value& right) {
  fail_if_undefined(left);
  fail_if_undefined(right);
  fail("unsupported operand types for " + operation + ": '" + type_name(left) + "' and '" + type_name(right) + "'");
}

void append(std::string& out, std::string_view part) {
  check_value_size(out.size() + part.size());
  out += part;
}

/// The items between brackets, each written by `write`.
template <typename Items, typename Write>
std::string bracketed(char open, const Items& items, char close, bool trailing_comma, const Write& write) {
  RecursionGuard guard;
  std::string out(1, open);
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += ", ";
    first = false;
    append(out, write(item));
  }
  if (trailing_comma) out += ',';
  return out + close;
}

std::string repr_of_array(const value& of) {
  if (kind_of(of) != Kind::list)
    fail_unsupported("printing what a filter, range() or a dictionary's view returns; add | list");
  const bool tuple = is_tuple(of);
  return bracketed(tuple ? '(' : '[', of->as_array(), tuple ? ')' : ']', tuple && of->val_arr.size() == 1, to_repr);
}

std::string repr_of_object(const value& of) {
  if (!is_dict(of)) fail_unsupported("printing a loop or a namespace");
  return bracketed('{', of->as_ordered_object(), '}', false,
                   [](const auto& pair) { return to_repr(pair.first) + ": " + to_repr(pair.second); });
}

bool equal_objects(const value& a, const value& b) {
  if (!is_dict(a) || !is_dict(b) || a->val_obj.size() != b->val_obj.size()) return false;
  RecursionGuard guard;
  for (const auto& [key, item] : a->as_ordered_object())
    if (!b->has_key(key) || !equal(item, b->at(key))) return false;
  return true;
}

bool equal_arrays(const value& a, const value& b) {
  if (is_generator(a) || is_generator(b)) return false;
  if (kind_of(a) == Kind::view || kind_of(b) == Kind::view) fail_unsupported("comparing a dictionary's view");
  if (is_tuple(a) != is_tuple(b) || kind_of(a) != kind_of(b)) return false;
  RecursionGuard guard;
  return std::equal(a->as_array().begin(), a->as_array().end(), b->as_array().begin(), b->as_array().end(),
                    [](const value& x, const value& y) { return x == y || equal(x, y); });
}

int64_t floor_modulo(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double floor_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

/// As Python's float.__floordiv__.
double floor_divide(double a, double b) {
  double rest = std::fmod(a, b), quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double rounded = std::floor(quotient);
  return quotient - rounded > 0.5 ? rounded + 1 : rounded;
}

int64_t integer_operation(const std::string& operation, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflowed = false;
  if (operation == "+")
    overflowed = __builtin_add_overflow(a, b, &result);
  else if (operation == "-")
    overflowed = __builtin_sub_overflow(a, b, &result);
  else if (operation == "*")
    overflowed = __builtin_mul_overflow(a, b, &result);
  else if (operation == "%")
    result = floor_modulo(a, b);
  else if (b == -1)
    overflowed = __builtin_sub_overflow(0, a, &result);
  else
    result = a / b - (floor_modulo(a, b) != a % b ? 1 : 0);
  if (overflowed) fail_unsupported("an integer beyond 64 bits");
  return result;
}

double float_operation(const std::string& operation, double a, double b) {
  if (operation == "+") return a + b;
  if (operation == "-") return a - b;
  if (operation == "*") return a * b;
  return operation == "%" ? floor_modulo(a, b) : floor_divide(a, b);
}

value arithmetic(const std::string& operation, const value& left, const value& right) {
  const bool divides = operation == "/" || operation == "//" || operation == "%";
  if (divides && double_of(right) == 0) fail("division by zero");
  constexpr int64_t exact_limit = int64_t{1} << 53;
  if (operation == "/") {
    for (const value& side : {left, right})
      if (!is_float(side) && (side->val_int > exact_limit || side->val_int < -exact_limit))
        fail_unsupported("dividing integers beyond 2^53");
    return make_float(double_of(left) / double_of(right));
  }
  if (!is_float(left) && !is_float(right))
    return make_integer(integer_operation(operation, left->val_int, right->val_int));
  return make_float(float_operation(operation, double_of(left), double_of(right)));
}

value repeated(const value& sequence, int64_t count) {
  if (is_text(sequence)) {
    const std::string text = text_of(sequence);
    if (count <= 0) return make_text("");
    check_repeated_size(text.size(), static_cast<std::size_t>(count));
    std::string out;
    out.reserve(text.size() * static_cast<std::size_t>(count));
    for (int64_t i = 0; i < count; ++i) out += text;
    return make_text(out);
  }
  value_list items;
  if (!sequence->val_arr.empty() && count > 0) check_loop_items(static_cast<std::size_t>(count));
  for (int64_t i = 0; i < count && !sequence->val_arr.empty(); ++i)
    items.insert(items.end(), sequence->val_arr.begin(), sequence->val_arr.end());
  return is_tuple(sequence) ? make_tuple(std::move(items)) : make_list(std::move(items));
}

value multiply(const value& left, const value& right) {
  const auto is_sequence = [](const value& of) { return is_text(of) || is_list(of); };
  const auto is_count = [](const value& of) { return is_number(of) && !is_float(of); };
  if (is_sequence(left) && is_count(right)) return repeated(left, right->val_int);
  if (is_count(left) && is_sequence(right)) return repeated(right, left->val_int);
  fail_operands("*", left, right);
}

value add(const value& left, const value& right) {
  if (is_text(left) && is_text(right)) {
    std::string out = text_of(left);
    append(out, text_of(right));
    return make_text(out);
  }
  if (!is_list(left) || !is_list(right) || is_tuple(left) != is_tuple(right)) fail_operands("+", left, right);
  value_list items = left->as_array();
  items.insert(items.end(), right->as_array().begin(), right->as_array().end());
  return is_tuple(left) ? make_tuple(std::move(items)) : make_list(std::move(items));
}

bool compare(const std::string& operation, const value& left, const value& right) {
  if (operation == "<") return less(left, right);
  if (operation == ">") return less(right, left);
  const bool is_nan = (is_float(left) && std::isnan(left->val_flt)) || (is_float(right) && std::isnan(right->val_flt));
  if (operation == "<=") return !less(right, left) && !is_nan;
  return !less(left, right) && !is_nan;
}

struct SliceRange {
  int64_t start, step, count;
};

/// As Python's PySlice_AdjustIndices.
SliceRange slice_range(int64_t size, const value& start, const value& stop, const value& step_value) {
  const auto number = [](const value& of) -> std::optional<int64_t> {
    if (!of || of->is_none()) return std::nullopt;
    return integer_of(of);
  };
  const int64_t step = std::clamp(number(step_value).value_or(1), -size - 1, size + 1);
  if (step == 0) fail("slice step cannot be zero");
  const int64_t lower = step < 0 ? -1 : 0, upper = step < 0 ? size - 1 : size;
  const auto bound = [&](const value& of, int64_t missing) {
    const auto given = number(of);
    if (!given) return missing;
    return *given < 0 ? std::max(*given + size, lower) : std::min(*given, upper);
  };
  const int64_t from = bound(start, step < 0 ? upper : lower), to = bound(stop, step < 0 ? lower : upper);
  const int64_t distance = step < 0 ? from - to : to - from, stride = std::abs(step);
  return {from, step, distance <= 0 ? 0 : (distance - 1) / stride + 1};
}

std::string slice_text(const std::string& text, const value& start, const value& stop, const value& step) {
  const std::vector<std::size_t> offsets = character_offsets(text);
  const SliceRange range = slice_range(static_cast<int64_t>(offsets.size()) - 1, start, stop, step);
  std::string out;
  for (int64_t i = 0, at = range.start; i < range.count; ++i, at += range.step) {
    const auto index = static_cast<std::size_t>(at);
    out.append(text, offsets[index], offsets[index + 1] - offsets[index]);
  }
  return out;
}

/// The item at a position of Python's kind; undefined if there is none.
value item_at(const value& sequence, int64_t index) {
  const bool text = is_text(sequence);
  const auto size = static_cast<int64_t>(length(sequence));
  const int64_t position = index < 0 ? index + size : index;
  if (position < 0 || position >= size)
    return make_undefined("'" + type_name(sequence) + " object' has no element " + std::to_string(index));
  if (!text) return sequence->val_arr[static_cast<std::size_t>(position)];
  const std::string all = text_of(sequence);
  const std::vector<std::size_t> offsets = character_offsets(all);
  const auto at = static_cast<std::size_t>(position);
  return make_text(all.substr(offsets[at], offsets[at + 1] - offsets[at]));
}

std::string no_attribute(const value& object, const std::string& name) {
  return "'" + type_name(object) + " object' has no attribute " + "'" + name + "'";
}

/// One '%…' of a format; moves `at` past it.
std::string format_one(const std::string& format, std::size_t& at, const value& argument) {
  const std::size_t begin = at;
  std::size_t precision = 6;
  if (format[at] == '.' && at + 2 < format.size() && format[at + 1] >= '0' && format[at + 1] <= '9') {
    precision = static_cast<std::size_t>(format[at + 1] - '0');
    at += 2;
  }
  const char type = at < format.size() ? format[at++] : '\0';
  const bool plain = at - begin == 1;
  if (type == 's' && plain) return to_text(argument);
  if (type == 'r' && plain) return to_repr(argument);
  if ((type == 'd' || type == 'i') && plain && is_number(argument) && !is_float(argument))
    return std::to_string(argument->val_int);
  if (type == 'f' && is_number(argument) && std::abs(double_of(argument)) < 1e15) {
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), double_of(argument));
    return buffer;
  }
  fail_unsupported("the format '%" + format.substr(begin, at - begin) + "' of '" + type_name(argument) + "'");
}

void json_into(std::string& out, const value& of, const JsonStyle& style, std::size_t depth);

/// Members of a JSON list or object, each written by `write`.
template <typename Items, typename Write>
void json_members(std::string& out, char open, const Items& items, char close, const JsonStyle& style,
                  std::size_t depth, const Write& write) {
  RecursionGuard guard;
  const auto line = [&](std::size_t level) {
    if (!style.lines) return;
    check_repeated_size(style.indent.size() + 1, level + 1);
    out += '\n';
    for (std::size_t i = 0; i < level; ++i) append(out, style.indent);
  };
  out += open;
  bool first = true;
  for (const auto& item : items) {
    if (!first) append(out, style.item_separator);
    first = false;
    line(depth + 1);
    write(item);
  }
  if (!first) line(depth);
  out += close;
}

std::string json_key(const value& key, const JsonStyle& style) {
  if (is_text(key)) return json_string(text_of(key), style.ensure_ascii);
  if (!is_number(key) && !key->is_none()) fail("keys must be str, int, float, bool or None, not " + type_name(key));
  return "\"" + to_json(key, style) + "\"";
}

void json_object(std::string& out, const value& of, const JsonStyle& style, std::size_t depth) {
  jinja::value_pairs pairs = of->as_ordered_object();
  if (style.sort_keys)
    std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return less(a.first, b.first); });
  json_members(out, '{', pairs, '}', style, depth, [&](const auto& pair) {
    append(out, json_key(pair.first, style));
    append(out, style.key_separator);
    json_into(out, pair.second, style, depth + 1);
  });
}

std::string json_number(double number) {
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
  return python_repr(number);
}

void json_into(std::string& out, const value& of, const JsonStyle& style, std::size_t depth) {
  if (of->is_none())
    append(out, "null");
  else if (is_val<jinja::value_bool>(of))
    append(out, of->val_int != 0 ? "true" : "false");
  else if (is_val<jinja::value_int>(of))
    append(out, std::to_string(of->val_int));
  else if (is_float(of))
    append(out, json_number(of->val_flt));
  else if (is_text(of))
    append(out, json_string(text_of(of), style.ensure_ascii));
  else if (is_list(of))
    json_members(out, '[', of->as_array(), ']', style, depth,
                 [&](const value& item) { json_into(out, item, style, depth + 1); });
  else if (is_dict(of))
    json_object(out, of, style, depth);
  else
    fail("Object of type " + type_name(of) + " is not JSON serializable");
}

}  // namespace

void fail(const std::string& message) { throw jinja::raised_exception(message); }

void fail_unsupported(const std::string& what) { fail("not supported here: " + what); }

std::string encode_character(char32_t c) {
  std::string out;
  append_char(out, c);
  return out;
}

std::string type_name(const value& of) {
  if (of->is_undefined()) return "Undefined";
  if (of->is_none()) return "NoneType";
  if (is_val<jinja::value_bool>(of)) return "bool";
  if (is_val<jinja::value_int>(of)) return "int";
  if (is_float(of)) return "float";
  if (is_text(of)) return "str";
  if (is_tuple(of)) return "tuple";
  if (is_array(of)) return kind_of(of) == Kind::list ? "list" : is_generator(of) ? "generator" : "range or dict view";
  if (is_val<jinja::value_object>(of)) return is_dict(of) ? "dict" : "loop or namespace";
  return "function";
}

bool is_number(const value& of) { return of->is_numeric(); }

bool is_dict(const value& of) {
  return is_val<jinja::value_object>(of) && jinja::cast_val<jinja::value_object>(of)->has_builtins;
}

bool is_list(const value& of) { return is_array(of) && kind_of(of) == Kind::list; }

bool is_text(const value& of) { return is_val<jinja::value_string>(of); }

std::string text_of(const value& of) {
  fail_if_undefined(of);
  if (!is_text(of)) fail("a string is needed, not '" + type_name(of) + "'");
  return of->val_str.str();
}

int64_t integer_of(const value& of) {
  fail_if_undefined(of);
  if (!is_number(of) || is_float(of)) fail("an integer is needed, not '" + type_name(of) + "'");
  return of->val_int;
}

value make_text(const std::string& text) {
  check_value_size(text.size());
  return mk_val<jinja::value_string>(text);
}
value make_integer(int64_t number) { return mk_val<jinja::value_int>(number); }
value make_float(double number) { return mk_val<jinja::value_float>(number); }
value make_boolean(bool truth) { return mk_val<jinja::value_bool>(truth); }
value make_none() { return mk_val<jinja::value_none>(); }
value make_undefined(const std::string& hint) { return mk_val<jinja::value_undefined>(hint); }
value make_list(value_list items) { return mk_val<jinja::value_array>(std::move(items)); }
value make_tuple(value_list items) { return mk_val<jinja::value_tuple>(std::move(items)); }

value make_generator(value_list items) {
  auto made = mk_val<jinja::value_array>(std::move(items));
  made->kind = Kind::generator;
  return made;
}

value make_texts(const std::vector<std::string>& texts) {
  value_list items;
  for (const std::string& text : texts) items.push_back(make_text(text));
  return make_list(std::move(items));
}

std::string to_text(const value& of) {
  if (is_text(of)) return of->val_str.str();
  return of->is_undefined() ? "" : to_repr(of);
}

std::string to_repr(const value& of) {
  if (of->is_undefined()) return "Undefined";
  if (of->is_none()) return "None";
  if (is_val<jinja::value_bool>(of)) return of->val_int != 0 ? "True" : "False";
  if (is_val<jinja::value_int>(of)) return std::to_string(of->val_int);
  if (is_float(of)) return python_repr(of->val_flt);
  if (is_text(of)) return python_repr(of->val_str.str());
  if (is_array(of)) return repr_of_array(of);
  if (is_val<jinja::value_object>(of)) return repr_of_object(of);
  fail_unsupported("printing a function");
}

bool truth(const value& of) {
  if (is_float(of)) return of->val_flt != 0;
  if (is_number(of)) return of->val_int != 0;
  if (is_text(of)) return of->val_str.length() > 0;
  if (is_array(of)) return is_generator(of) || !of->val_arr.empty();
  if (is_dict(of)) return !of->val_obj.empty();
  return !of->is_undefined() && !of->is_none();
}

bool equal(const value& a, const value& b) {
  charge_work(256);
  if (is_number(a) && is_number(b)) return exact(a) == exact(b);
  if (a == b) return true;
  if (is_text(a) && is_text(b)) return a->val_str.str() == b->val_str.str();
  if (is_array(a) && is_array(b)) return equal_arrays(a, b);
  if (is_val<jinja::value_object>(a) && is_val<jinja::value_object>(b)) return equal_objects(a, b);
  return (a->is_none() && b->is_none()) || (a->is_undefined() && b->is_undefined());
}

bool less(const value& a, const value& b) {
  charge_work(1024);
  if (is_number(a) && is_number(b)) return exact(a) < exact(b);
  if (is_text(a) && is_text(b)) return a->val_str.str() < b->val_str.str();
  if (!is_list(a) || !is_list(b) || is_tuple(a) != is_tuple(b)) fail_operands("<", a, b);
  RecursionGuard guard;
  const value_list &left = a->as_array(), &right = b->as_array();
  for (std::size_t i = 0; i < left.size() && i < right.size(); ++i)
    if (!equal(left[i], right[i])) return less(left[i], right[i]);
  return left.size() < right.size();
}

bool contains(const value& container, const value& item) {
  if (is_text(container)) {
    const std::string text = text_of(container), part = text_of(item);
    charge_search(text.size(), part.size());
    return text.find(part) != text.npos;
  }
  if (is_dict(container)) return container->has_key(item);
  for (const value& candidate : iterate(container)) {
    if (candidate == item || equal(candidate, item)) return true;
  }
  return false;
}

std::size_t length(const value& of) {
  if (of->is_undefined()) return 0;
  if (is_text(of)) return count_characters(text_of(of));
  if (is_array(of) && !is_generator(of)) return of->val_arr.size();
  if (is_dict(of)) return of->val_obj.size();
  fail("object of type '" + type_name(of) + "' has no len()");
}

value_list iterate(const value& over) {
  if (is_generator(over)) return std::exchange(over->val_arr, {});
  if (is_array(over)) return over->as_array();
  value_list items;
  if (is_dict(over)) {
    for (const auto& [key, item] : over->as_ordered_object()) items.push_back(key);
  } else if (is_text(over)) {
    const std::string text = text_of(over);
    for (std::size_t at = 0; at < text.size(); at += char_length(text[at]))
      items.push_back(make_text(text.substr(at, char_length(text[at]))));
  } else if (!over->is_undefined()) {
    fail("'" + type_name(over) + "' object is not iterable");
  }
  return items;
}

value binary_operation(const std::string& operation, const value& left, const value& right) {
  if (operation == "~") {
    std::string out = to_text(left);
    append(out, to_text(right));
    return make_text(out);
  }
  if (operation == "==") return make_boolean(equal(left, right));
  if (operation == "!=") return make_boolean(!equal(left, right));
  if (operation == "in") return make_boolean(contains(right, left));
  if (operation == "not in") return make_boolean(!contains(right, left));
  if (operation[0] == '<' || operation[0] == '>') return make_boolean(compare(operation, left, right));
  if (is_number(left) && is_number(right)) return arithmetic(operation, left, right);
  if (operation == "+") return add(left, right);
  if (operation == "*") return multiply(left, right);
  if (operation == "%" && is_text(left))
    return make_text(format_percent(text_of(left), is_tuple(right) ? right->as_array() : value_list{right}));
  fail_operands(operation, left, right);
}

value unary_operation(const std::string& operation, const value& operand) {
  if (operation == "not") return make_boolean(!truth(operand));
  fail_if_undefined(operand);
  if (!is_number(operand)) fail("bad operand type for unary " + operation + ": '" + type_name(operand) + "'");
  if (operation == "+") return is_float(operand) ? operand : make_integer(operand->val_int);
  if (is_float(operand)) return make_float(-operand->val_flt);
  return make_integer(integer_operation("-", 0, operand->val_int));
}

std::string format_percent(const std::string& format, const value_list& values) {
  std::string out;
  std::size_t used = 0;
  for (std::size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      out += format[at++];
      continue;
    }
    if (++at < format.size() && format[at] == '%') {
      out += format[at++];
      continue;
    }
    if (used == values.size()) fail("not enough arguments for format string");
    if (at == format.size()) fail("incomplete format");
    append(out, format_one(format, at, values[used++]));
  }
  if (used < values.size() && !(used == 0 && values.size() == 1 && (is_dict(values[0]) || is_list(values[0]))))
    fail("not all arguments converted during string formatting");
  return out;
}

value attribute(const value& object, const std::string& name) {
  fail_if_undefined(object);
  if (name.rfind("__", 0) == 0) fail_unsupported("the attribute '" + name + "'");
  if (is_val<jinja::value_func>(object)) fail_unsupported("attributes of functions");
  if (const value found = method(object, name)) return found;
  if (is_val<jinja::value_object>(object)) {
    const value key = make_text(name);
    if (object->has_key(key)) return object->at(key);
  }
  return make_undefined(no_attribute(object, name));
}

value element(const value& object, const value& key) {
  fail_if_undefined(object);
  if (is_val<jinja::value_func>(object)) fail_unsupported("elements of functions");
  const bool is_sequence =
      is_text(object) || (is_array(object) && !is_generator(object) && kind_of(object) != Kind::view);
  if (is_sequence && is_number(key) && !is_float(key)) return item_at(object, key->val_int);
  if (is_dict(object) && key->is_hashable() && object->has_key(key)) return object->at(key);
  if (!is_text(key)) return make_undefined("'" + type_name(object) + " object' has no element " + to_repr(key));
  const std::string name = text_of(key);
  if (!is_dict(object)) return attribute(object, name);
  const value found = method(object, name);
  return found ? found : make_undefined(no_attribute(object, name));
}

value slice(const value& object, const value& start, const value& stop, const value& step) {
  fail_if_undefined(object);
  if (is_text(object)) return make_text(slice_text(text_of(object), start, stop, step));
  if (!is_list(object)) fail_unsupported("a slice of '" + type_name(object) + "'");
  const SliceRange range = slice_range(static_cast<int64_t>(object->val_arr.size()), start, stop, step);
  value_list items;
  for (int64_t i = 0, at = range.start; i < range.count; ++i, at += range.step)
    items.push_back(object->val_arr[static_cast<std::size_t>(at)]);
  return is_tuple(object) ? make_tuple(std::move(items)) : make_list(std::move(items));
}

std::string to_json(const value& of, const JsonStyle& style) {
  std::string out;
  json_into(out, of, style, 0);
  return out;
}

}  // namespace peft::text
