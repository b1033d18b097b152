#include "data/rendering.h"

#include "peft/base/error.h"

namespace peft::data {
namespace {

std::string render(const ChatTemplate& chat, const Record& record, std::size_t turns, bool add_generation_prompt) {
  std::vector<Message> messages;
  for (std::size_t i = 0; i < turns; ++i) messages.push_back(record.turns[i].message);
  try {
    return chat.render(messages, add_generation_prompt);
  } catch (const InputError& error) {
    throw InputError(record.source + ": " + error.what());
  }
}

/// An answer as the template shows it: text[0, begin) is what the model reads, text[begin, …) what it says.
struct Answer {
  std::string text;
  std::size_t begin;
};

Answer render_answer(const ChatTemplate& chat, const Record& record, std::size_t turn) {
  const std::string prompt = render(chat, record, turn, true);
  std::string text = render(chat, record, turn + 1, false);
  if (!text.starts_with(prompt))
    throw InputError(record.source + ": message " + std::to_string(turn) +
                     ": the chat template's assistant turn does " +
                     "not start with its generation prompt, so the target tokens are unknown; give a template of your "
                     "own with [model] chat_template or --chat-template");
  return {std::move(text), prompt.size()};
}

RenderedExample rendered_answer(const Answer& answer) {
  return {{{answer.text.substr(0, answer.begin), false}, {answer.text.substr(answer.begin), true}}, false};
}

/// The turns that are targets. Throws if locating the answers would take too long.
std::vector<std::size_t> answered_turns(const Record& record) {
  constexpr std::size_t max_rendered = std::size_t{1} << 21;  // messages rendered: some half a minute
  std::vector<std::size_t> turns;
  std::size_t rendered = 0;
  for (std::size_t i = 1; i < record.turns.size(); ++i) {  // a first turn answers nothing
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

std::vector<RenderedExample> render_chat(const Record& record, const ChatTemplate& chat) {
  const std::vector<std::size_t> turns = answered_turns(record);
  if (turns.empty()) return {};

  RenderedExample example{{}, false};
  std::string before;  // turns after the last answer teach nothing
  bool nested = true;
  for (const std::size_t turn : turns) {
    Answer answer = render_answer(chat, record, turn);
    nested = answer.begin >= before.size() && answer.text.starts_with(before);
    if (!nested) break;
    example.segments.push_back({answer.text.substr(before.size(), answer.begin - before.size()), false});
    example.segments.push_back({answer.text.substr(answer.begin), true});
    before = std::move(answer.text);
  }
  if (nested) return {std::move(example)};
  std::vector<RenderedExample> each;
  for (const std::size_t turn : turns) each.push_back(rendered_answer(render_answer(chat, record, turn)));
  return each;
}

}  // namespace

std::vector<RenderedExample> render_record(const Record& record, const ChatTemplate* chat_template) {
  if (!record.turns.empty()) return render_chat(record, *chat_template);
  RenderedExample example{{}, true};
  if (!record.prompt.empty()) example.segments.push_back({record.prompt, false});
  example.segments.push_back({record.completion, true});
  return {std::move(example)};
}

}  // namespace peft::data
