// Checks that an accepted tokenizer.json can be used: each text gives ids in range, which give UTF-8 text, or an
// InputError.
#include "json_tree.h"
#include "peft/text/tokenizer/tokenizer.h"
#include "target.h"
#include "text/tokenizer/bpe.h"
#include "text/unicode.h"

namespace peft::fuzz {

namespace {

const std::string texts[] = {
    "",
    "Hello, world! I'm   here <s>now</s>\n\n12345 ab abc\t",
    "naïve \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80 e\xCC\x81 \xEF\xAC\x81 \xC4\xB0 \xE2\x96\x81 \xC4\xA0",
    std::string(120, 'a'),
    std::string("\0\x7f", 2) + std::string(60, ' ') + "b",
};

void check(const Tokenizer& tokenizer, const std::string& text) {
  for (const bool special : {false, true}) {
    const std::vector<int64_t> ids = tokenizer.encode(text, special);
    for (const int64_t id : ids) expect(id >= 0 && id < text::kMaxVocabulary, "an id out of range");
    for (const bool skip : {false, true})
      expect(text::find_bad_utf8(tokenizer.decode(ids, skip)) == std::string::npos, "a text that is not UTF-8");
  }
}

void run(const std::string& bytes) {
  const auto tokenizer = Tokenizer::from_json(bytes, "INPUT");
  expect(tokenizer->size() >= 0 && tokenizer->size() <= 2 * text::kMaxVocabulary, "a vocabulary out of range");
  for (const std::string& text : texts) check(*tokenizer, text);
  for (int64_t id = -1; id <= std::min<int64_t>(tokenizer->size(), 300); ++id) {
    const std::string token = tokenizer->token(id);
    expect(token.empty() || tokenizer->id(token).has_value(), "a token without an id");
  }
}

}  // namespace

const Target target = {"tokenizer", "INPUT", run, mutate_json};

}  // namespace peft::fuzz
