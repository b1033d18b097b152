#include "text/tokenizer/post_processor.h"

#include "peft/base/error.h"
#include "text/tokenizer/bpe.h"

namespace peft::text {

namespace {

using Ids = std::vector<int64_t>;

Ids ids_of(const JsonObjectReader& specials, const std::string& token) {
  const JsonObjectReader special = specials.at(token);
  Ids ids;
  for (const nlohmann::json& id : special.array("ids")) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMaxVocabulary)
      special.fail("'ids' must contain integers from 0 to " + std::to_string(kMaxVocabulary - 1));
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

PostProcessor read_template(const JsonObjectReader& in) {
  in.allow_only({"type", "single", "pair", "special_tokens"});
  Ids prefix, suffix;
  bool has_sequence = false;
  for (const JsonObjectReader& piece : in.each("single")) {
    piece.allow_only({"SpecialToken", "Sequence"});
    if (piece.has("Sequence")) {
      if (has_sequence || piece.at("Sequence").text("id") != "A") piece.fail("a single text has one sequence, A");
      has_sequence = true;
      continue;
    }
    const Ids ids = ids_of(in.at("special_tokens"), piece.at("SpecialToken").text("id"));
    Ids& side = has_sequence ? suffix : prefix;
    side.insert(side.end(), ids.begin(), ids.end());
    if (prefix.size() + suffix.size() > 1024) piece.fail("more than 1024 special tokens for each text");
  }
  if (!has_sequence) in.fail("'single' has no sequence A");
  return [prefix, suffix](Ids ids) {
    ids.insert(ids.begin(), prefix.begin(), prefix.end());
    ids.insert(ids.end(), suffix.begin(), suffix.end());
    return ids;
  };
}

PostProcessor read_sequence(const JsonObjectReader& in) {
  in.allow_only({"type", "processors"});
  std::vector<PostProcessor> steps;
  for (const JsonObjectReader& step : in.each("processors")) steps.push_back(read_post_processor(step));
  return [steps](Ids ids) {
    for (const PostProcessor& step : steps) ids = step(std::move(ids));
    return ids;
  };
}

}  // namespace

PostProcessor read_post_processor(const JsonObjectReader& in) {
  const std::string type = in.text("type");
  if (type == "Sequence") return read_sequence(in);
  if (type == "TemplateProcessing") return read_template(in);
  if (type == "ByteLevel") {
    in.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    return [](Ids ids) { return ids; };  // changes offsets only
  }
  in.fail("post-processor '" + printable(type) + "' is not implemented");
}

}  // namespace peft::text
