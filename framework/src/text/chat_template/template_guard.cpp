#include "text/chat_template/template_guard.h"

#include <vector>

#include "peft/base/error.h"
#include "text/chat_template/template_meter.h"
#include "text/chat_template/template_values.h"

namespace peft::text {

namespace {

using jinja::statement_ptr;
using jinja::statements;

constexpr int64_t max_steps = 200'000, max_macro_depth = 50, max_range = 1'000'000;
constexpr int max_nesting = 100, max_tag_tokens = 1000;
constexpr std::size_t max_name_bytes = 200;
constexpr std::time_t fixed_date = 1'721'952'000;  // 2024-07-26T00:00:00Z

void check_size(const value& checked) {
  charge_work(8 * checked->val_str.parts.size());
  std::size_t size = 0;
  for (const auto& part : checked->val_str.parts) size += part.val.size() + 1;
  check_value_size(size + checked->val_arr.size());
}

/// A statement that add_guards() inserts into a program.
class GuardStatement : public jinja::statement {
 public:
  explicit GuardStatement(TemplateBudget& budget) : budget_(budget) { pos = 0; }
  std::string type() const override { return "Guard"; }

 protected:
  TemplateBudget& budget_;
};

class CountStep : public GuardStatement {
 public:
  using GuardStatement::GuardStatement;
  value execute_impl(jinja::context&) override {
    if (++budget_.steps > max_steps) throw jinja::raised_exception("more than 200000 steps");
    return jinja::mk_val<jinja::value_undefined>();
  }
};

class EnterMacro : public GuardStatement {
 public:
  EnterMacro(TemplateBudget& budget, const statements& parameters) : GuardStatement(budget) {
    for (const statement_ptr& parameter : parameters) {
      const auto* keyword = jinja::cast_stmt<jinja::keyword_argument_expression>(parameter);
      if (const auto* name = jinja::cast_stmt<jinja::identifier>(keyword ? keyword->key : parameter))
        names_.push_back(name->val);
    }
  }
  value execute_impl(jinja::context& context) override {
    if (++budget_.depth > max_macro_depth) throw jinja::raised_exception("macros nested deeper than 50");
    for (const std::string& name : names_) check_size(context.get_val(name));
    return jinja::mk_val<jinja::value_undefined>();
  }

 private:
  std::vector<std::string> names_;
};

class LeaveMacro : public GuardStatement {
 public:
  using GuardStatement::GuardStatement;
  value execute_impl(jinja::context&) override {
    --budget_.depth;
    return jinja::mk_val<jinja::value_undefined>();
  }
};

/// An assignment that checks the size of the assigned value.
class CheckedAssignment : public GuardStatement {
 public:
  CheckedAssignment(TemplateBudget& budget, statement_ptr&& inner) : GuardStatement(budget), inner_(std::move(inner)) {
    pos = inner_->pos;
  }
  value execute_impl(jinja::context& context) override {
    value result = inner_->execute(context);
    check_size(jinja::cast_stmt<jinja::set_statement>(inner_)->assignee->execute(context));
    return result;
  }

 private:
  statement_ptr inner_;
};

void guard_body(statements& body, TemplateBudget& budget);

void guard_callable(statements& body, const statements& parameters, TemplateBudget& budget) {
  guard_body(body, budget);
  body.insert(body.begin(), std::make_unique<CountStep>(budget));
  body.insert(body.begin(), std::make_unique<EnterMacro>(budget, parameters));
  body.push_back(std::make_unique<LeaveMacro>(budget));
}

void guard_statement(statement_ptr& node, TemplateBudget& budget) {
  if (auto* loop = jinja::cast_stmt<jinja::for_statement>(node)) {
    guard_body(loop->body, budget);
    guard_body(loop->default_block, budget);
    loop->body.insert(loop->body.begin(), std::make_unique<CountStep>(budget));
  } else if (auto* branch = jinja::cast_stmt<jinja::if_statement>(node)) {
    guard_body(branch->body, budget);
    guard_body(branch->alternate, budget);
  } else if (auto* macro = jinja::cast_stmt<jinja::macro_statement>(node)) {
    guard_callable(macro->body, macro->args, budget);
  } else if (auto* call = jinja::cast_stmt<jinja::call_statement>(node)) {
    guard_callable(call->body, call->caller_args, budget);
  } else if (auto* filter = jinja::cast_stmt<jinja::filter_statement>(node)) {
    guard_body(filter->body, budget);
  } else if (auto* assignment = jinja::cast_stmt<jinja::set_statement>(node)) {
    guard_body(assignment->body, budget);
    node = std::make_unique<CheckedAssignment>(budget, std::move(node));
  }
}

void guard_body(statements& body, TemplateBudget& budget) {
  for (statement_ptr& node : body) guard_statement(node, budget);
}

value limited_range(const jinja::func_args& arguments) {
  int64_t numbers[] = {0, 0, 1};
  const auto count = static_cast<std::size_t>(arguments.count());
  for (std::size_t i = 0; i < count && i < 3; ++i) {
    const value argument = arguments.get_pos(i);
    if (!jinja::is_val<jinja::value_int>(argument)) throw jinja::raised_exception("range() takes integers");
    numbers[i] = argument->as_int();
    if (numbers[i] < -max_range || numbers[i] > max_range)
      throw jinja::raised_exception("range() takes integers from -1000000 to 1000000");
  }
  const value range = jinja::global_builtins().at("range")(arguments);
  std::dynamic_pointer_cast<jinja::value_array_t>(range)->kind = jinja::value_array_t::kind_t::range;
  return range;
}

value limited_strftime(const jinja::func_args& arguments) {
  const std::string given = text_of(Arguments("strftime_now", arguments).bind({"format"}, 1)[0]);
  std::string format;
  for (std::size_t at = 0; at < given.size();) {
    const std::size_t end = given[at] == '%' ? given.find_first_not_of("-_0^#EO123456789", at + 1) : at;
    const std::size_t next = end == given.npos ? given.size() : end + 1;
    const char type = given[at] == '%' ? given[next - 1] : '\0';
    if (type == 's') fail("strftime_now: %s depends on the time zone");
    if (type == 'f') format += "000000";  // what Python adds to those of C, for a time without a time zone
    if (type != 'f' && type != 'z' && type != 'Z') format.append(given, at, next - at);
    at = next;
  }
  if (format.empty()) return make_text("");
  jinja::func_args checked(arguments.ctx);
  checked.push_back(make_text(format));
  return jinja::global_builtins().at("strftime_now")(checked);
}

bool is_opening(jinja::token::type type) {
  using jinja::token;
  return type == token::open_paren || type == token::open_square_bracket || type == token::open_curly_bracket;
}

bool is_closing(jinja::token::type type) {
  using jinja::token;
  return type == token::close_paren || type == token::close_square_bracket || type == token::close_curly_bracket;
}

/// Whether the tag whose name is at `tag` is {% set x %}, which has a body, and not {% set x = 1 %}.
bool is_set_block(const std::vector<jinja::token>& tokens, std::size_t tag) {
  using jinja::token;
  int brackets = 0;
  for (std::size_t i = tag; i < tokens.size() && tokens[i].t != token::close_statement; ++i) {
    if (is_opening(tokens[i].t)) ++brackets;
    if (is_closing(tokens[i].t)) --brackets;
    if (tokens[i].t == token::equals && brackets == 0) return false;
  }
  return true;
}

/// Tracks how deeply blocks such as {% if %} … {% endif %} are nested.
class BlockDepth {
 public:
  int depth() const { return depth_; }
  /// Takes the tag whose name is at `tag`.
  void on_tag(const std::vector<jinja::token>& tokens, std::size_t tag) {
    const std::string& name = tokens[tag].value;
    if (name == "if" || name == "for" || name == "macro" || name == "call" || name == "filter" ||
        (name == "set" && is_set_block(tokens, tag))) {
      open_.push_back(1);
      ++depth_;
    } else if (name == "elif" && !open_.empty()) {
      ++open_.back();  // the engine nests an elif in the else branch of the if before it
      ++depth_;
    } else if (name.rfind("end", 0) == 0 && name != "endgeneration" && !open_.empty()) {
      depth_ -= open_.back();
      open_.pop_back();
    }
  }

 private:
  std::vector<int> open_;
  int depth_ = 0;
};

}  // namespace

void check_nesting(const jinja::lexer_result& result) {
  using jinja::token;
  int brackets = 0, tokens = 0;
  BlockDepth blocks;
  for (std::size_t i = 0; i < result.tokens.size(); ++i) {
    const auto type = result.tokens[i].t;
    if (is_opening(type)) ++brackets;
    if (is_closing(type)) --brackets;
    tokens = type == token::open_statement || type == token::open_expression ? 0 : tokens + 1;
    if (type == token::open_statement && i + 1 < result.tokens.size()) blocks.on_tag(result.tokens, i + 1);
    if (brackets > max_nesting || blocks.depth() > max_nesting)
      throw InputError("chat template: nested deeper than " + std::to_string(max_nesting));
    if (tokens > max_tag_tokens && type != token::text)
      throw InputError("chat template: a tag with more than " + std::to_string(max_tag_tokens) + " tokens");
    if (type == token::identifier && result.tokens[i].value.size() > max_name_bytes)
      throw InputError("chat template: a name longer than " + std::to_string(max_name_bytes) + " bytes");
  }
}

RenderingScope::RenderingScope() { template_meter = {}; }

RenderingScope::~RenderingScope() {
  // Values still alive form reference cycles. Their contents are moved out first, because destroying values changes the
  // list that the loop follows.
  std::vector<jinja::value_list> lists;
  std::vector<jinja::value_pairs> pairs;
  std::vector<jinja::func_handler> functions;
  std::vector<decltype(jinja::value_object_t::unordered)> maps;
  for (RegisteredValue* left = RegisteredValue::first(); left; left = left->next()) {
    auto& leaked = static_cast<jinja::value_t&>(*left);
    lists.push_back(std::move(leaked.val_arr));
    pairs.push_back(std::move(leaked.val_obj));
    functions.push_back(std::move(leaked.val_func));
    if (auto* object = dynamic_cast<jinja::value_object_t*>(&leaked)) maps.push_back(std::move(object->unordered));
  }
}

void add_guards(jinja::program& program, TemplateBudget& budget) { guard_body(program.body, budget); }

void limit_range(jinja::context& context) {
  context.set_val("range", jinja::mk_val<jinja::value_func>("range", jinja::func_handler(limited_range)));
}

void fix_date(jinja::context& context) {
  context.current_time = fixed_date;
  context.set_val("strftime_now",
                  jinja::mk_val<jinja::value_func>("strftime_now", jinja::func_handler(limited_strftime)));
}

}  // namespace peft::text
