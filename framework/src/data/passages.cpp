#include "data/passages.h"

#include "peft/error.h"

namespace peft::data {
namespace {

std::string render(const ChatTemplate& chat, const Item& item, std::size_t turns, bool add_generation_prompt) {
  std::vector<Message> messages;
  for (std::size_t i = 0; i < turns; ++i) messages.push_back(item.turns[i].message);
  try {
    return chat.render(messages, add_generation_prompt);
  } catch (const InputError& error) {
    throw InputError(item.source + ": " + error.what());
  }
}

/// An answer as the template shows it: text[0, begin) is what the model reads, text[begin, …) what it says.
struct Answer {
  std::string text;
  std::size_t begin;
};

Answer render_answer(const ChatTemplate& chat, const Item& item, std::size_t turn) {
  const std::string prompt = render(chat, item, turn, true);
  std::string text = render(chat, item, turn + 1, false);
  if (!text.starts_with(prompt))
    throw InputError(
        item.source + ": message " + std::to_string(turn) + ": the chat template writes the assistant's " +
        "turn otherwise than its own generation prompt begins it, so what the model must say is not known");
  return {std::move(text), prompt.size()};
}

Passage passage_of(const Answer& answer) {
  return {{{answer.text.substr(0, answer.begin), false}, {answer.text.substr(answer.begin), true}}, false};
}

std::vector<Passage> chat_passages(const Item& item, const ChatTemplate& chat) {
  std::vector<Answer> answers;
  for (std::size_t i = 1; i < item.turns.size(); ++i)  // a first turn answers nothing
    if (item.turns[i].supervised) answers.push_back(render_answer(chat, item, i));
  if (answers.empty()) return {};

  const std::string& whole = answers.back().text;  // turns after the last answer teach nothing
  Passage passage{{}, false};
  std::size_t done = 0;
  bool nested = true;
  for (const Answer& answer : answers) {
    nested = nested && answer.begin >= done && whole.starts_with(answer.text);
    if (!nested) break;
    passage.segments.push_back({whole.substr(done, answer.begin - done), false});
    passage.segments.push_back({whole.substr(answer.begin, answer.text.size() - answer.begin), true});
    done = answer.text.size();
  }
  if (nested) return {std::move(passage)};
  std::vector<Passage> each;
  for (const Answer& answer : answers) each.push_back(passage_of(answer));
  return each;
}

}  // namespace

std::vector<Passage> make_passages(const Item& item, const ChatTemplate* chat_template) {
  if (!item.turns.empty()) return chat_passages(item, *chat_template);
  Passage passage{{}, true};
  if (!item.prompt.empty()) passage.segments.push_back({item.prompt, false});
  passage.segments.push_back({item.completion, true});
  return {std::move(passage)};
}

}  // namespace peft::data
