#include "text/tokenizer/post_processor.h"

#include "peft/base/error.h"
#include "text/tokenizer/bpe.h"

namespace peft::text {

namespace {

using Ids = std::vector<int64_t>;

Ids ids_of(const Fields& specials, const std::string& token) {
  const Fields special = specials.at(token);
  Ids ids;
  for (const nlohmann::json& id : special.array("ids")) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= max_vocabulary)
      special.fail("'ids' must hold integers from 0 to " + std::to_string(max_vocabulary - 1));
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

PostProcessor read_template(const Fields& in) {
  in.only({"type", "single", "pair", "special_tokens"});
  Ids head, tail;
  bool seen = false;
  for (const Fields& piece : in.each("single")) {
    piece.only({"SpecialToken", "Sequence"});
    if (piece.has("Sequence")) {
      if (seen || piece.at("Sequence").text("id") != "A") piece.fail("a single text has one sequence, A");
      seen = true;
      continue;
    }
    const Ids ids = ids_of(in.at("special_tokens"), piece.at("SpecialToken").text("id"));
    Ids& side = seen ? tail : head;
    side.insert(side.end(), ids.begin(), ids.end());
    if (head.size() + tail.size() > 1024) piece.fail("more than 1024 special tokens for each text");
  }
  if (!seen) in.fail("'single' has no sequence A");
  return [head, tail](Ids ids) {
    ids.insert(ids.begin(), head.begin(), head.end());
    ids.insert(ids.end(), tail.begin(), tail.end());
    return ids;
  };
}

PostProcessor read_sequence(const Fields& in) {
  in.only({"type", "processors"});
  std::vector<PostProcessor> steps;
  for (const Fields& step : in.each("processors")) steps.push_back(read_post_processor(step));
  return [steps](Ids ids) {
    for (const PostProcessor& step : steps) ids = step(std::move(ids));
    return ids;
  };
}

}  // namespace

PostProcessor read_post_processor(const Fields& in) {
  const std::string type = in.text("type");
  if (type == "Sequence") return read_sequence(in);
  if (type == "TemplateProcessing") return read_template(in);
  if (type == "ByteLevel") {
    in.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    return [](Ids ids) { return ids; };  // it moves offsets only
  }
  in.fail("post-processor '" + printable(type) + "' is not implemented");
}

}  // namespace peft::text
