// The filters and tests of Jinja2, with transformers' tojson.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>

#include "text/chat_template/template_text.h"
#include "text/chat_template/template_values.h"

namespace peft::text {

namespace {

using jinja::is_val;
using jinja::mk_val;

/// A filter's input and arguments; `call` is needed to apply other filters and tests.
struct Call {
  const value& input;
  Arguments arguments;
  jinja::context& context;
};
using Filter = std::function<value(const Call&)>;
using Test = std::function<bool(const Call&)>;
using Filters = std::map<std::string, Filter>;
using Tests = std::map<std::string, Test>;

std::vector<value> no_arguments(const Call& call) { return call.arguments.bind({}, 0); }

bool is_set(const value& argument) { return argument && truth(argument); }

/// The arguments after the first `skipped` positional ones, for another filter or test.
jinja::func_args rest_of(const Call& call, std::size_t skipped) {
  jinja::func_args rest(call.context);
  for (std::size_t i = skipped; i < call.arguments.positional().size(); ++i)
    rest.push_back(call.arguments.positional()[i]);
  for (const auto& [name, given] : call.arguments.named()) rest.push_back(mk_val<jinja::value_kwarg>(name, given));
  return rest;
}

/// Jinja2's make_attrgetter: "a.b" is the element b of the element a; digits are an index.
class Getter {
 public:
  Getter(const value& path, value missing) : missing_(std::move(missing)) {
    if (!path || path->is_none()) return;
    if (!is_text(path)) {
      parts_.push_back(make_integer(integer_of(path)));
      return;
    }
    for (const std::string& part : python_split(text_of(path), ".", -1)) {
      const bool is_index = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
      parts_.push_back(is_index ? make_integer(std::stoll(part)) : make_text(part));
    }
  }
  value operator()(value of) const {
    for (const value& part : parts_) {
      of = element(of, part);
      if (of->is_undefined() && missing_ && !missing_->is_none()) of = missing_;
    }
    return of;
  }

 private:
  value_list parts_;
  value missing_;
};

/// What sort, unique, min and max compare: texts in lower case, unless case matters.
value sort_key(const value& of, bool case_sensitive) {
  return !case_sensitive && is_text(of) ? make_text(python_lower(text_of(of))) : of;
}

/// Stable, and equal items keep their order when it is reversed, as in Python.
void sort_by(value_list& items, bool reversed, const std::function<value(const value&)>& key) {
  std::vector<std::pair<value, value>> keyed;
  for (const value& item : items) keyed.emplace_back(key(item), item);
  std::stable_sort(keyed.begin(), keyed.end(), [reversed](const auto& a, const auto& b) {
    return reversed ? less(b.first, a.first) : less(a.first, b.first);
  });
  for (std::size_t i = 0; i < items.size(); ++i) items[i] = keyed[i].second;
}

value filter_sort(const Call& call) {
  const auto given = call.arguments.bind({"reverse", "case_sensitive", "attribute"}, 0);
  value_list attributes;
  if (given[2] && is_text(given[2]))
    for (const std::string& part : python_split(text_of(given[2]), ",", -1)) attributes.push_back(make_text(part));
  else
    attributes.push_back(given[2]);
  value_list items = iterate(call.input);
  sort_by(items, is_set(given[0]), [&](const value& item) {
    value_list keys;
    for (const value& path : attributes) keys.push_back(sort_key(Getter(path, nullptr)(item), is_set(given[1])));
    return make_list(std::move(keys));
  });
  return make_list(std::move(items));
}

value filter_dictsort(const Call& call) {
  const auto given = call.arguments.bind({"case_sensitive", "by", "reverse"}, 0);
  const std::string by = given[1] ? text_of(given[1]) : "key";
  if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
  if (!is_dict(call.input)) fail("'" + type_name(call.input) + "' object has no attribute 'items'");
  value_list items;
  for (const auto& [key, item] : call.input->as_ordered_object()) items.push_back(make_tuple({key, item}));
  sort_by(items, is_set(given[2]),
          [&](const value& item) { return sort_key(item->val_arr[by == "key" ? 0 : 1], is_set(given[0])); });
  return make_list(std::move(items));
}

template <bool largest>
value filter_extreme(const Call& call) {
  const auto given = call.arguments.bind({"case_sensitive", "attribute"}, 0);
  const value_list items = iterate(call.input);
  if (items.empty()) return make_undefined("No aggregated item, sequence was empty.");
  const Getter get(given[1], nullptr);
  value best = items[0], best_key = sort_key(get(best), is_set(given[0]));
  for (std::size_t i = 1; i < items.size(); ++i) {
    const value key = sort_key(get(items[i]), is_set(given[0]));
    if (largest ? !less(best_key, key) : !less(key, best_key)) continue;
    best = items[i];
    best_key = key;
  }
  return best;
}

value filter_unique(const Call& call) {
  const auto given = call.arguments.bind({"case_sensitive", "attribute"}, 0);
  const Getter get(given[1], nullptr);
  auto seen = mk_val<jinja::value_object>();
  value_list kept;
  for (const value& item : iterate(call.input)) {
    const value key = sort_key(get(item), is_set(given[0]));
    if (!key->is_hashable()) fail("unhashable type: '" + type_name(key) + "'");
    if (seen->has_key(key)) continue;
    seen->insert(key, make_none());
    kept.push_back(item);
  }
  return make_generator(std::move(kept));
}

value filter_map(const Call& call) {
  if (!truth(call.input)) return make_generator({});
  value_list results;
  if (call.arguments.positional().empty()) {
    value path, missing;
    for (const auto& [name, given] : call.arguments.named()) {
      if (name != "attribute" && name != "default") fail("Unexpected keyword argument '" + name + "'");
      (name == "attribute" ? path : missing) = given;
    }
    if (!path) fail("map requires a filter argument");
    const Getter get(path, missing);
    for (const value& item : iterate(call.input)) results.push_back(get(item));
  } else {
    const std::string name = text_of(call.arguments.positional()[0]);
    for (const value& item : iterate(call.input)) results.push_back(apply_filter(name, item, rest_of(call, 1)));
  }
  return make_generator(std::move(results));
}

/// select, reject, selectattr and rejectattr.
template <bool wanted, bool of_attribute>
value filter_select(const Call& call) {
  const value_list& given = call.arguments.positional();
  if (of_attribute && given.empty()) fail("Missing parameter for attribute name");
  if (!truth(call.input)) return make_generator({});
  const Getter get(of_attribute ? given[0] : value(), nullptr);
  constexpr std::size_t test = of_attribute ? 1 : 0;
  value_list kept;
  for (const value& item : iterate(call.input)) {
    const value tested = get(item);
    const bool passes =
        test < given.size() ? apply_test(text_of(given[test]), tested, rest_of(call, test + 1)) : truth(tested);
    if (passes == wanted) kept.push_back(item);
  }
  return make_generator(std::move(kept));
}

value filter_join(const Call& call) {
  const auto given = call.arguments.bind({"d", "attribute"}, 0);
  const std::string separator = given[0] ? to_text(given[0]) : "";
  const Getter get(given[1], nullptr);
  std::string out;
  bool first = true;
  for (const value& item : iterate(call.input)) {
    if (!std::exchange(first, false)) out += separator;
    out += to_text(get(item));
    check_value_size(out.size());
  }
  return make_text(out);
}

value filter_sum(const Call& call) {
  const auto given = call.arguments.bind({"attribute", "start"}, 0);
  const Getter get(given[0], nullptr);
  value sum = given[1] ? given[1] : make_integer(0);
  if (is_text(sum)) fail("sum() can't sum strings");
  for (const value& item : iterate(call.input)) sum = binary_operation("+", sum, get(item));
  return sum;
}

value filter_default(const Call& call) {
  const auto given = call.arguments.bind({"default_value", "boolean"}, 0);
  const bool missing = call.input->is_undefined() || (is_set(given[1]) && !truth(call.input));
  if (!missing) return call.input;
  return given[0] ? given[0] : make_text("");
}

value filter_first(const Call& call) {
  no_arguments(call);
  if (is_val<jinja::value_array>(call.input) && !call.input->val_arr.empty()) {
    const value first = call.input->val_arr[0];
    if (type_name(call.input) == "generator") call.input->val_arr.erase(call.input->val_arr.begin());
    return first;
  }
  const value_list items = iterate(call.input);
  return items.empty() ? make_undefined("No first item, sequence was empty.") : items.front();
}

value filter_last(const Call& call) {
  no_arguments(call);
  if (type_name(call.input) == "generator") fail("'generator' object is not reversible");
  const value_list items = iterate(call.input);
  return items.empty() ? make_undefined("No last item, sequence was empty.") : items.back();
}

value filter_reverse(const Call& call) {
  no_arguments(call);
  if (is_text(call.input)) return slice(call.input, nullptr, nullptr, make_integer(-1));
  value_list items = iterate(call.input);
  std::reverse(items.begin(), items.end());
  return type_name(call.input) == "generator" ? make_list(std::move(items)) : make_generator(std::move(items));
}

value filter_items(const Call& call) {
  no_arguments(call);
  if (call.input->is_undefined()) return make_generator({});
  if (!is_dict(call.input)) fail("Can only get item pairs from a mapping.");
  value_list items;
  for (const auto& [key, item] : call.input->as_ordered_object()) items.push_back(make_tuple({key, item}));
  return make_generator(std::move(items));
}

value filter_tojson(const Call& call) {
  const auto given = call.arguments.bind({"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonStyle style;
  style.ensure_ascii = is_set(given[0]);
  style.sort_keys = is_set(given[3]);
  if (given[1] && !given[1]->is_none()) {
    style.lines = true;
    style.item_separator = ",";
    if (is_text(given[1])) {
      style.indent = text_of(given[1]);
    } else {
      const auto width = static_cast<std::size_t>(std::max<int64_t>(integer_of(given[1]), 0));
      check_repeated_size(1000, width);
      style.indent = std::string(width, ' ');
    }
  }
  if (given[2] && !given[2]->is_none()) {
    const value_list pair = iterate(given[2]);
    if (pair.size() != 2) fail("'separators' must be two strings");
    style.item_separator = text_of(pair[0]);
    style.key_separator = text_of(pair[1]);
  }
  return make_text(to_json(call.input, style));
}

value filter_indent(const Call& call) {
  const auto given = call.arguments.bind({"width", "first", "blank"}, 0);
  std::string indent = "    ";
  if (given[0] && is_text(given[0])) {
    indent = text_of(given[0]);
  } else if (given[0]) {
    const auto width = static_cast<std::size_t>(std::max<int64_t>(integer_of(given[0]), 0));
    check_value_size(width);
    indent = std::string(width, ' ');
  }
  std::string out;
  bool first = true;
  for (const std::string& line : python_splitlines(text_of(call.input) + "\n", false)) {
    check_value_size(out.size() + indent.size() + line.size());
    if (!first) out += "\n";
    if (first ? is_set(given[1]) : !line.empty() || is_set(given[2])) out += indent;
    first = false;
    out += line;
  }
  return make_text(out);
}

/// What int() gives for a number; nothing if it is not finite.
std::optional<int64_t> truncated(double number) {
  if (!std::isfinite(number)) return std::nullopt;
  if (std::abs(number) >= 9.2e18) fail_unsupported("an integer beyond 64 bits");
  return static_cast<int64_t>(number);
}

void fail_if_undefined(const value& of) {
  if (of->is_undefined()) text_of(of);
}

value filter_int(const Call& call) {
  const auto given = call.arguments.bind({"default", "base"}, 0);
  if (given[1] && !equal(given[1], make_integer(10))) fail_unsupported("int() with another base than 10");
  fail_if_undefined(call.input);
  std::optional<int64_t> found;
  if (is_text(call.input)) {
    found = python_int(text_of(call.input));
    if (const auto number = found ? std::nullopt : python_float(text_of(call.input))) found = truncated(*number);
  } else if (is_val<jinja::value_float>(call.input)) {
    found = truncated(call.input->val_flt);
  } else if (is_number(call.input)) {
    found = call.input->val_int;
  }
  if (found) return make_integer(*found);
  return given[0] ? given[0] : make_integer(0);
}

value filter_float(const Call& call) {
  const auto given = call.arguments.bind({"default"}, 0);
  fail_if_undefined(call.input);
  if (is_val<jinja::value_float>(call.input)) return call.input;
  if (is_number(call.input)) return make_float(static_cast<double>(call.input->val_int));
  if (is_text(call.input))
    if (const auto number = python_float(text_of(call.input))) return make_float(*number);
  return given[0] ? given[0] : make_float(0);
}

value filter_abs(const Call& call) {
  no_arguments(call);
  fail_if_undefined(call.input);
  if (!is_number(call.input)) fail("bad operand type for abs(): '" + type_name(call.input) + "'");
  const value zero = make_integer(0);
  return less(call.input, zero) ? unary_operation("-", call.input) : unary_operation("+", call.input);
}

value filter_round(const Call& call) {
  const auto given = call.arguments.bind({"precision", "method"}, 0);
  fail_if_undefined(call.input);
  if ((given[0] && !equal(given[0], make_integer(0))) || !is_number(call.input))
    fail_unsupported("round() to digits, or of what is not a number");
  const std::string how = given[1] ? text_of(given[1]) : "common";
  const bool is_float = is_val<jinja::value_float>(call.input);
  if (how == "common" && !is_float) return make_integer(call.input->val_int);
  const double number = is_float ? call.input->val_flt : static_cast<double>(call.input->val_int);
  if (how == "common") return make_float(std::nearbyint(number));
  if (how != "ceil" && how != "floor") fail("method must be common, ceil or floor");
  if (std::abs(number) >= 9007199254740992.0) fail_unsupported("round() beyond 2^53");
  // math.floor() gives an integer, which loses the sign of zero
  return make_float((how == "ceil" ? std::ceil(number) : std::floor(number)) + 0.0);
}

/// Python's attribute only, never a dictionary's element.
value filter_attr(const Call& call) {
  const std::string name = text_of(call.arguments.bind({"name"}, 1)[0]);
  if (!is_dict(call.input)) return attribute(call.input, name);
  const value found = method(call.input, name);
  return found ? found : make_undefined("'dict object' has no attribute '" + name + "'");
}

value filter_batch(const Call& call) {
  const auto given = call.arguments.bind({"linecount", "fill_with"}, 1);
  const int64_t count = integer_of(given[0]);
  if (count < 1) fail_unsupported("batch() of less than 1");
  value_list batches, batch;
  for (const value& item : iterate(call.input)) {
    if (static_cast<int64_t>(batch.size()) == count) batches.push_back(make_list(std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (batch.empty()) return make_generator(std::move(batches));
  if (given[1] && !given[1]->is_none()) {
    check_loop_items(static_cast<std::size_t>(count));
    while (static_cast<int64_t>(batch.size()) < count) batch.push_back(given[1]);
  }
  batches.push_back(make_list(std::move(batch)));
  return make_generator(std::move(batches));
}

value filter_replace(const Call& call) {
  const auto given = call.arguments.bind({"old", "new", "count"}, 2);
  const int64_t limit = given[2] && !given[2]->is_none() ? integer_of(given[2]) : -1;
  return make_text(python_replace(to_text(call.input), to_text(given[0]), to_text(given[1]), limit));
}

value filter_trim(const Call& call) {
  const auto given = call.arguments.bind({"chars"}, 0);
  std::optional<std::string> characters;
  if (given[0] && !given[0]->is_none()) characters = text_of(given[0]);
  return make_text(python_strip(to_text(call.input), characters, true, true));
}

value filter_format(const Call& call) {
  if (!call.arguments.named().empty()) fail_unsupported("format() with names");
  return make_text(format_percent(to_text(call.input), call.arguments.positional()));
}

template <std::string (*change)(const std::string&)>
value filter_changed(const Call& call) {
  no_arguments(call);
  return make_text(change(to_text(call.input)));
}

const Filters& filters() {
  static const Filters all = {
      {"abs", filter_abs},
      {"attr", filter_attr},
      {"batch", filter_batch},
      {"capitalize", filter_changed<python_capitalize>},
      {"count", [](const Call& call) { return make_integer(static_cast<int64_t>(length(call.input))); }},
      {"d", filter_default},
      {"default", filter_default},
      {"dictsort", filter_dictsort},
      {"first", filter_first},
      {"float", filter_float},
      {"format", filter_format},
      {"indent", filter_indent},
      {"int", filter_int},
      {"items", filter_items},
      {"join", filter_join},
      {"last", filter_last},
      {"length", [](const Call& call) { return make_integer(static_cast<int64_t>(length(call.input))); }},
      {"list", [](const Call& call) { return make_list(iterate(call.input)); }},
      {"lower", filter_changed<python_lower>},
      {"map", filter_map},
      {"max", filter_extreme<true>},
      {"min", filter_extreme<false>},
      {"reject", filter_select<false, false>},
      {"rejectattr", filter_select<false, true>},
      {"replace", filter_replace},
      {"reverse", filter_reverse},
      {"round", filter_round},
      {"select", filter_select<true, false>},
      {"selectattr", filter_select<true, true>},
      {"sort", filter_sort},
      {"string", [](const Call& call) { return make_text(to_text(call.input)); }},
      {"sum", filter_sum},
      {"title", filter_changed<jinja_title>},
      {"tojson", filter_tojson},
      {"trim", filter_trim},
      {"unique", filter_unique},
      {"upper", filter_changed<python_upper>},
  };
  return all;
}

template <bool wanted>
bool test_parity(const Call& call) {
  no_arguments(call);
  return equal(binary_operation("%", call.input, make_integer(2)), make_integer(wanted ? 1 : 0));
}

/// Whether the text is in lower (upper) case; ASCII only.
template <bool upper>
bool test_case(const Call& call) {
  no_arguments(call);
  bool found = false;
  for (const char c : to_text(call.input)) {
    if (static_cast<unsigned char>(c) >= 0x80) fail_unsupported("this test of text that is not ASCII");
    const bool is_upper = c >= 'A' && c <= 'Z', is_lower = c >= 'a' && c <= 'z';
    if (upper ? is_lower : is_upper) return false;
    found = found || is_upper || is_lower;
  }
  return found;
}

template <bool (*holds)(const value&, const value&)>
bool test_pair(const Call& call) {
  return holds(call.input, call.arguments.bind({"other"}, 1)[0]);
}

template <bool (*holds)(const value&)>
bool test_kind(const Call& call) {
  no_arguments(call);
  return holds(call.input);
}

template <typename T>
bool is_a(const value& of) {
  return is_val<T>(of);
}
bool is_true(const value& of) { return is_val<jinja::value_bool>(of) && of->val_int != 0; }
bool is_false(const value& of) { return is_val<jinja::value_bool>(of) && of->val_int == 0; }
bool is_none(const value& of) { return of->is_none(); }
bool is_undefined(const value& of) { return of->is_undefined(); }
bool is_defined(const value& of) { return !of->is_undefined(); }
bool is_array(const value& of) { return is_val<jinja::value_array>(of); }
bool is_iterable(const value& of) { return is_text(of) || is_array(of) || is_dict(of) || of->is_undefined(); }
bool is_sequence(const value& of) {
  if (is_array(of) && !is_list(of))
    return jinja::cast_val<jinja::value_array>(of)->kind == jinja::value_array_t::kind_t::range;
  return is_iterable(of);
}
bool never(const value&) { return false; }

bool is_unequal(const value& a, const value& b) { return !equal(a, b); }
bool is_greater(const value& a, const value& b) { return less(b, a); }
bool is_at_least(const value& a, const value& b) { return truth(binary_operation(">=", a, b)); }
bool is_at_most(const value& a, const value& b) { return truth(binary_operation("<=", a, b)); }
bool is_in(const value& item, const value& container) { return contains(container, item); }
bool is_divisible(const value& a, const value& b) { return equal(binary_operation("%", a, b), make_integer(0)); }
bool is_same(const value& a, const value& b) {
  if (is_val<jinja::value_bool>(b) || b->is_none()) return type_name(a) == type_name(b) && equal(a, b);
  fail_unsupported("the test 'sameas' with other values than true, false and none");
}

const Tests& tests() {
  static const Tests all = {
      {"boolean", test_kind<is_a<jinja::value_bool>>},
      {"callable", test_kind<is_a<jinja::value_func>>},
      {"defined", test_kind<is_defined>},
      {"divisibleby", test_pair<is_divisible>},
      {"eq", test_pair<equal>},
      {"equalto", test_pair<equal>},
      {"==", test_pair<equal>},
      {"escaped", test_kind<never>},
      {"even", test_parity<false>},
      {"false", test_kind<is_false>},
      {"float", test_kind<is_a<jinja::value_float>>},
      {"ge", test_pair<is_at_least>},
      {">=", test_pair<is_at_least>},
      {"greaterthan", test_pair<is_greater>},
      {"gt", test_pair<is_greater>},
      {">", test_pair<is_greater>},
      {"in", test_pair<is_in>},
      {"integer", test_kind<is_a<jinja::value_int>>},
      {"iterable", test_kind<is_iterable>},
      {"le", test_pair<is_at_most>},
      {"<=", test_pair<is_at_most>},
      {"lessthan", test_pair<less>},
      {"lower", test_case<false>},
      {"lt", test_pair<less>},
      {"<", test_pair<less>},
      {"mapping", test_kind<is_dict>},
      {"ne", test_pair<is_unequal>},
      {"!=", test_pair<is_unequal>},
      {"none", test_kind<is_none>},
      {"number", test_kind<is_number>},
      {"odd", test_parity<true>},
      {"sameas", test_pair<is_same>},
      {"sequence", test_kind<is_sequence>},
      {"string", test_kind<is_text>},
      {"true", test_kind<is_true>},
      {"undefined", test_kind<is_undefined>},
      {"upper", test_case<true>},
  };
  return all;
}

}  // namespace

value apply_filter(const std::string& name, const value& input, const jinja::func_args& arguments) {
  RecursionGuard guard;
  const auto found = filters().find(name);
  if (found == filters().end()) fail_unsupported("the filter '" + name + "'");
  return found->second({input, Arguments(name, arguments), arguments.ctx});
}

bool apply_test(const std::string& name, const value& input, const jinja::func_args& arguments) {
  const auto found = tests().find(name);
  if (found == tests().end()) fail_unsupported("the test '" + name + "'");
  return found->second({input, Arguments(name, arguments), arguments.ctx});
}

}  // namespace peft::text
