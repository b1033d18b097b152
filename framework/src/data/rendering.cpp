#include "data/rendering.h"

#include <algorithm>

#include "peft/base/error.h"

namespace peft::data {
namespace {

/// The turns that are targets. Throws if rendering what locates them would take too long.
std::vector<std::size_t> answered_turns(const Record& record) {
  constexpr std::size_t max_rendered = std::size_t{1} << 21;  // messages rendered: some half a minute
  std::vector<std::size_t> turns;
  std::size_t rendered = 0;
  for (std::size_t i = 0; i < record.turns.size(); ++i) {
    if (has_calls(record.turns[i].message)) rendered += 2 * i + 2;
    if (!record.turns[i].is_target) continue;
    turns.push_back(i);
    rendered += 2 * i + 1;
  }
  if (rendered > max_rendered)
    throw InputError(record.source + ": " + std::to_string(turns.size()) + " answers in a conversation of " +
                     std::to_string(record.turns.size()) +
                     " messages: each is located by rendering all messages before it, which adds up to " +
                     std::to_string(rendered) + " messages; at most " + std::to_string(max_rendered) +
                     " are rendered: split the conversation");
  return turns;
}

Message without_calls(const Message& message) {
  Json keys = *message.keys;
  keys.erase("tool_calls");
  keys.erase("function_call");
  return {message.role, message.content, std::make_shared<const Json>(std::move(keys))};
}

Message with_joined_parts(const Message& message) {
  Json keys = *message.keys;
  keys["content"] = message.content;
  return {message.role, message.content, std::make_shared<const Json>(std::move(keys))};
}

}  // namespace

std::string Renderer::text(const Record& record, std::size_t turns, bool add_generation_prompt) const {
  std::vector<Message> messages;
  for (std::size_t i = 0; i < turns; ++i) messages.push_back(record.turns[i].message);
  try {
    return chat_template_->render(messages, add_generation_prompt, record.tools.get());
  } catch (const InputError& error) {
    throw InputError(record.source + ": " + error.what());
  }
}

/// What the template writes between a question and its answer; "" if that is nothing.
const std::string& Renderer::generation_prompt() {
  if (generation_prompt_) return *generation_prompt_;
  generation_prompt_ = "";
  try {
    const std::vector<Message> question = {{"user", "x"}};
    const std::string plain = chat_template_->render(question, false), asked = chat_template_->render(question, true);
    if (asked.starts_with(plain)) generation_prompt_ = asked.substr(plain.size());
  } catch (const InputError&) {  // a template that needs more than a question
  }
  return *generation_prompt_;
}

/// Whether the template reads `content` that is a list of parts; others write the list out as Python shows it.
bool Renderer::reads_parts(const std::string& role) {
  const auto [known, is_new] = reads_parts_.try_emplace(role, false);
  if (!is_new) return known->second;
  const std::string words = "a part of a message";
  const Json keys = {{"role", role}, {"content", Json::array({{{"type", "text"}, {"text", words}}})}};
  const Message probe{role, words, std::make_shared<const Json>(keys)}, question{"user", "x"};
  const bool is_first = role == "system" || role == "developer";
  try {
    const std::string text = chat_template_->render(
        is_first ? std::vector<Message>{probe, question} : std::vector<Message>{question, probe}, false);
    const auto shows = [&](const char* what) { return text.find(what) != std::string::npos; };
    known->second = shows(words.c_str()) && !shows("'type'") && !shows("\"type\"");
  } catch (const InputError&) {  // it takes strings only
  }
  return known->second;
}

void Renderer::join_unread_parts(Record& record) {
  for (ChatTurn& turn : record.turns) {
    Message& message = turn.message;
    if (!message.keys || !message.keys->contains("content") || !message.keys->at("content").is_array()) continue;
    if (!reads_parts(message.role)) message = with_joined_parts(message);
  }
}

/// The first answer of a conversation that the assistant opens: what follows the first generation prompt. What precedes
/// it cannot be rendered alone, because many templates need a message, or write a system message of their own first.
Renderer::Answer Renderer::render_opening(const Record& record) {
  std::string opened = text(record, 1, false);
  if (const std::string& prompt = generation_prompt(); !prompt.empty()) {
    const std::size_t at = opened.find(prompt);
    return {std::move(opened), at == std::string::npos ? at : at + prompt.size()};
  }
  const std::string prompt = text(record, 0, true);
  return {opened, opened.starts_with(prompt) ? prompt.size() : std::string::npos};
}

Renderer::Answer Renderer::render_answer(const Record& record, std::size_t turn) {
  Answer answer;
  if (turn == 0) {
    answer = render_opening(record);
  } else {
    const std::string prompt = text(record, turn, true);
    answer.text = text(record, turn + 1, false);
    answer.begin = answer.text.starts_with(prompt) ? prompt.size() : std::string::npos;
  }
  if (answer.begin == std::string::npos)
    throw InputError(record.source + ": message " + std::to_string(turn) +
                     ": the chat template's assistant turn does " +
                     "not start with its generation prompt, so the target tokens are unknown; give a template of your "
                     "own with [model] chat_template or --chat-template");
  return answer;
}

/// Throws for a call that the template leaves out: the model would learn to answer nothing.
void Renderer::check_calls(const Record& record, std::size_t turns) const {
  for (std::size_t i = 0; i < turns; ++i) {
    const ChatTurn& turn = record.turns[i];
    if (!has_calls(turn.message)) continue;
    const char* key = turn.message.keys->value("tool_calls", Json()).empty() ? "function_call" : "tool_calls";
    Record without;
    without.turns.assign(record.turns.begin(), record.turns.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    without.turns[i].message = without_calls(turn.message);
    without.tools = record.tools, without.source = record.source;
    const std::string rendered = text(record, i + 1, false);
    std::string left;
    try {
      left = text(without, i + 1, false);
    } catch (const InputError&) {  // it needs the call
      continue;
    }
    if (rendered == left)
      throw InputError(record.source + ": '" + turn.path + key +
                       "' is not rendered by the chat template, so the call would not be learned; use a model whose "
                       "template renders it" +
                       (std::string(key) == "function_call" ? ", or write it as 'tool_calls'" : ""));
  }
}

/// Drops tools that the template leaves out, or throws if they are needed.
void Renderer::check_tools(Record& record, std::size_t turns) const {
  if (!record.tools) return;
  const std::string rendered = text(record, turns, false);
  const auto tools = std::move(record.tools);
  record.tools = nullptr;
  if (text(record, turns, false) != rendered) {
    record.tools = tools;
  } else if (record.needs_tools) {
    throw InputError(record.source +
                     ": 'tools' is not rendered by the chat template; set [data] format to train on the rest of such "
                     "records");
  }
}

std::vector<RenderedExample> Renderer::render_chat(Record& record) {
  const std::vector<std::size_t> turns = answered_turns(record);
  if (turns.empty()) return {};
  join_unread_parts(record);
  check_tools(record, turns.back() + 1);
  check_calls(record, turns.back() + 1);

  const auto example_of = [](const Answer& answer) -> RenderedExample {
    return {{{answer.text.substr(0, answer.begin), false}, {answer.text.substr(answer.begin), true}}, true};
  };
  RenderedExample example{{}, true};
  std::string before;  // turns after the last answer teach nothing
  bool nested = true;
  for (const std::size_t turn : turns) {
    Answer answer = render_answer(record, turn);
    nested = answer.begin >= before.size() && answer.text.starts_with(before);
    if (!nested) break;
    example.segments.push_back({answer.text.substr(before.size(), answer.begin - before.size()), false});
    example.segments.push_back({answer.text.substr(answer.begin), true});
    before = std::move(answer.text);
  }
  if (nested) return {std::move(example)};
  std::vector<RenderedExample> each;
  for (const std::size_t turn : turns) each.push_back(example_of(render_answer(record, turn)));
  return each;
}

std::vector<RenderedExample> Renderer::render(Record record) {
  if (!record.turns.empty()) return render_chat(record);
  RenderedExample example{{}, false};
  if (!record.prompt.empty()) example.segments.push_back({record.prompt, false});
  example.segments.push_back({record.completion, true});
  return {std::move(example)};
}

}  // namespace peft::data
