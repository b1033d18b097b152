#include "peft/text/tokenizer/tokenizer.h"

#include <algorithm>

#include "files/json_object_reader.h"
#include "peft/base/error.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/decoder.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/post_processor.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/tokenizer_json.h"
#include "text/unicode.h"

namespace peft {

Tokenizer::~Tokenizer() = default;

namespace {

using namespace text;

/// The steps of a tokenizer.json, in order: added tokens, normalizer, pre-tokenizer, model, post-processor.
class JsonTokenizer : public Tokenizer {
 public:
  explicit JsonTokenizer(const JsonObjectReader& in)
      : name_(in.location()),
        normalizer_(in.has("normalizer") ? read_normalizer(in.at("normalizer")) : nullptr),
        pre_tokenizer_(in.has("pre_tokenizer") ? read_pre_tokenizer(in.at("pre_tokenizer")) : nullptr),
        post_processor_(in.has("post_processor") ? read_post_processor(in.at("post_processor")) : nullptr),
        decoder_(in.has("decoder") ? read_decoder(in.at("decoder")) : nullptr),
        model_(in.at("model")),
        added_(in.has("added_tokens") ? in.each("added_tokens") : std::vector<JsonObjectReader>(), model_,
               normalizer_) {
    // Truncation and padding are ignored: the data loader decides how to batch.
    in.allow_only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                   "decoder", "model"});
  }

  std::vector<int64_t> encode(const std::string& text, bool add_special_tokens) const override {
    const std::size_t error = find_bad_utf8(text);
    if (error != std::string::npos)
      throw InputError("the text is not UTF-8 at byte " + std::to_string(error) + ": '" +
                       printable(text.substr(error, 16)) + "'");
    TextBudget budget(text.size(), name_);
    std::vector<int64_t> ids;
    for (TextPiece& piece : added_.extract(text, normalizer_, budget)) {
      if (piece.id)
        ids.push_back(*piece.id);
      else
        encode_text(std::move(piece), budget, ids);
    }
    return add_special_tokens && post_processor_ ? post_processor_(std::move(ids)) : ids;
  }

  std::string decode(const std::vector<int64_t>& ids, bool skip_special_tokens) const override {
    std::vector<std::string> tokens;
    for (const int64_t id : ids) {
      if (skip_special_tokens && added_.special(id)) continue;
      if (const std::string* found = find(id)) tokens.push_back(*found);
    }
    std::size_t bytes = 0;
    for (const std::string& token : tokens) bytes += token.size();
    TextBudget budget(bytes, name_);
    if (decoder_) tokens = decoder_(std::move(tokens), budget);
    std::string text;
    for (const std::string& token : tokens) {
      if (!decoder_ && !text.empty()) text += ' ';
      text += token;
    }
    return text;
  }

  int64_t size() const override { return std::max(model_.size(), added_.size()); }

  std::optional<int64_t> id(const std::string& token) const override {
    const auto found = added_.id(token);
    return found ? found : model_.id(token);
  }

  std::string token(int64_t id) const override {
    const std::string* found = find(id);
    return found ? *found : "";
  }

 private:
  const std::string* find(int64_t id) const {
    const std::string* found = added_.token(id);
    return found ? found : model_.token(id);
  }

  void encode_text(TextPiece text, TextBudget& budget, std::vector<int64_t>& ids) const {
    std::vector<Piece> pieces{{std::move(text.text), text.first}};
    if (pre_tokenizer_) pieces = pre_tokenizer_(std::move(pieces), budget);
    for (const Piece& piece : pieces) model_.encode(piece.text, ids);
  }

  std::string name_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  PostProcessor post_processor_;
  Decoder decoder_;
  Bpe model_;
  AddedTokens added_;
};

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_json(const std::string& json, const std::string& name) {
  const nlohmann::json document = parse_tokenizer_json(json, name);
  return std::make_shared<JsonTokenizer>(JsonObjectReader(document, name));
}

}  // namespace peft
