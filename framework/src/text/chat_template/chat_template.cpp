#include "peft/text/chat_template/chat_template.h"

#include <cmath>
#include <limits>
#include <mutex>
#include <new>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "text/chat_template/template_guard.h"
#include "text/unicode.h"

namespace peft {

ChatTemplate::~ChatTemplate() = default;

namespace {

using namespace text;

constexpr std::size_t max_source_bytes = 1 << 20;

/// Extracts "line 3, column 5: message" from the engine's report of several lines.
std::string location_and_message(const std::string& report) {
  const std::string marker = "\nError: ";
  const std::size_t error = report.find(marker);
  std::string message = error == report.npos ? report : report.substr(error + marker.size());
  const std::string prefix = "Jinja Exception: ";
  if (message.rfind(prefix, 0) == 0) message.erase(0, prefix.size());
  message = printable(message, 500);
  const std::size_t line = report.find(" at line "), end = report.find(" in source:");
  if (line == report.npos || end == report.npos || end < line) return message;
  return report.substr(line + 4, end - line - 4) + ": " + message;
}

using Json = nlohmann::ordered_json;

/// The engine's integers have 64 bits, those of Python any number; a larger one has been rounded to a double.
void check_number(const Json& number) {
  const bool is_wide = number.is_number_unsigned()
                           ? number.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}
                           : number.is_number_float() && std::abs(number.get<double>()) >= 0x1p63;
  if (is_wide) throw InputError("the number " + number.dump() + " has more than 64 bits; write it as a string");
}

jinja::value to_value(const Json& json) {
  if (json.is_number()) check_number(json);
  if (json.is_null()) return jinja::mk_val<jinja::value_none>();
  if (json.is_boolean()) return jinja::mk_val<jinja::value_bool>(json.get<bool>());
  if (json.is_number_float()) return jinja::mk_val<jinja::value_float>(json.get<double>());
  if (json.is_number()) return jinja::mk_val<jinja::value_int>(json.get<int64_t>());
  if (json.is_string()) return jinja::mk_val<jinja::value_string>(json.get_ref<const std::string&>());
  if (json.is_array()) {
    auto list = jinja::mk_val<jinja::value_array>();
    for (const Json& item : json) list->push_back(to_value(item));
    return list;
  }
  auto object = jinja::mk_val<jinja::value_object>();
  for (const auto& [key, item] : json.items()) object->insert(key, to_value(item));
  return object;
}

jinja::value to_value(const Message& message) {
  if (message.keys) return to_value(*message.keys);
  auto object = jinja::mk_val<jinja::value_object>();
  object->insert("role", jinja::mk_val<jinja::value_string>(message.role));
  object->insert("content", jinja::mk_val<jinja::value_string>(message.content));
  return object;
}

/// A template for llama.cpp's engine. Renderings update the budget that the program's guards check, so a mutex
/// serializes them.
class JinjaTemplate : public ChatTemplate {
 public:
  JinjaTemplate(const std::string& source, const std::map<std::string, std::string>& special_tokens)
      : source_(source), special_tokens_(special_tokens) {
    if (source.size() > max_source_bytes) throw InputError("chat template: longer than 1 MiB");
    if (find_bad_utf8(source) != std::string::npos) throw InputError("chat template: not UTF-8");
    try {
      jinja::lexer lexer;
      const jinja::lexer_result tokens = lexer.tokenize(source);
      check_nesting(tokens);
      program_ = jinja::parse_from_tokens(tokens);
    } catch (const Error&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      throw InputError("chat template: " + printable(error.what(), 500));
    }
    add_guards(program_, budget_);
  }

  std::string render(const std::vector<Message>& messages, bool add_generation_prompt,
                     const Json* tools) const override {
    const std::lock_guard lock(mutex_);
    budget_ = {};
    const RenderingScope scope;
    try {
      jinja::context context(source_);
      set_variables(context, messages, add_generation_prompt, tools);
      auto parts = jinja::mk_val<jinja::value_string>();
      jinja::gather_string_parts_recursive(jinja::runtime(context).execute(program_), parts);
      return parts->val_str.str();
    } catch (const Error&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      throw InputError("chat template: " + location_and_message(error.what()));
    }
  }

 private:
  void set_variables(jinja::context& context, const std::vector<Message>& messages, bool add_generation_prompt,
                     const Json* tools) const {
    auto list = jinja::mk_val<jinja::value_array>();
    for (const Message& message : messages) list->push_back(to_value(message));
    context.set_val("messages", list);
    context.set_val("add_generation_prompt", jinja::mk_val<jinja::value_bool>(add_generation_prompt));
    for (const auto& [name, token] : special_tokens_) context.set_val(name, jinja::mk_val<jinja::value_string>(token));
    context.set_val("tools", tools ? to_value(*tools) : jinja::mk_val<jinja::value_none>());  // as in transformers
    context.set_val("documents", jinja::mk_val<jinja::value_none>());
    limit_range(context);
    fix_date(context);
  }

  std::string source_;
  std::map<std::string, std::string> special_tokens_;
  mutable std::mutex mutex_;
  mutable TemplateBudget budget_;
  jinja::program program_;
};

}  // namespace

std::shared_ptr<const ChatTemplate> ChatTemplate::parse(const std::string& source,
                                                        const std::map<std::string, std::string>& special_tokens) {
  return std::make_shared<JinjaTemplate>(source, special_tokens);
}

}  // namespace peft
