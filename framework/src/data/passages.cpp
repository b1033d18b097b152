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

/// The turns that the model must say. Throws where finding what it says in them would take too long.
std::vector<std::size_t> answered_turns(const Item& item) {
  constexpr std::size_t most = std::size_t{1} << 21;  // messages rendered: some half a minute
  std::vector<std::size_t> turns;
  std::size_t rendered = 0;
  for (std::size_t i = 1; i < item.turns.size(); ++i) {  // a first turn answers nothing
    if (!item.turns[i].supervised) continue;
    turns.push_back(i);
    rendered += 2 * i + 1;
  }
  if (rendered > most)
    throw InputError(item.source + ": " + std::to_string(turns.size()) + " answers in a conversation of " +
                     std::to_string(item.turns.size()) +
                     " messages: each is found by rendering all that stands before it, and here that comes to " +
                     std::to_string(rendered) + " messages; at most " + std::to_string(most) +
                     " are rendered: split the conversation");
  return turns;
}

std::vector<Passage> chat_passages(const Item& item, const ChatTemplate& chat) {
  const std::vector<std::size_t> turns = answered_turns(item);
  if (turns.empty()) return {};

  Passage passage{{}, false};
  std::string before;  // turns after the last answer teach nothing
  bool nested = true;
  for (const std::size_t turn : turns) {
    Answer answer = render_answer(chat, item, turn);
    nested = answer.begin >= before.size() && answer.text.starts_with(before);
    if (!nested) break;
    passage.segments.push_back({answer.text.substr(before.size(), answer.begin - before.size()), false});
    passage.segments.push_back({answer.text.substr(answer.begin), true});
    before = std::move(answer.text);
  }
  if (nested) return {std::move(passage)};
  std::vector<Passage> each;
  for (const std::size_t turn : turns) each.push_back(passage_of(render_answer(chat, item, turn)));
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
