#include "peft/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "data/formats.h"
#include "data/records.h"
#include "data/rendering.h"
#include "data/thinking.h"
#include "peft/base/error.h"
#include "peft/data/sampler.h"

namespace peft {

DataOptions read_data_options(Options& in) {
  DataOptions o;
  in.get_paths("train", o.train, "training file or files: .json or .jsonl")
      .require(!o.train.empty() && std::none_of(o.train.begin(), o.train.end(), [](auto& p) { return p.empty(); }),
               "must be given");
  in.get_paths("eval", o.eval, "evaluation file or files");
  std::erase(o.eval, "");
  in.get("eval_split", o.eval_split, "ratio of the training records held out for evaluation; requires an empty eval")
      .require(std::isfinite(o.eval_split) && o.eval_split >= 0 && o.eval_split < 1, "must be at least 0 and below 1");
  if (o.eval_split > 0 && !o.eval.empty()) in.error("eval_split", "cannot be given together with 'eval'");
  StringList formats = data::format_names();
  formats.insert(formats.begin(), "auto");
  std::string listed;
  for (std::size_t i = 0; i < formats.size(); ++i)
    listed += std::string(i == 0 ? "" : i + 1 < formats.size() ? ", " : " or ") + formats[i];
  in.get("format", o.format, listed)
      .require(std::find(formats.begin(), formats.end(), o.format) != formats.end(), "must be " + listed);
  in.get("max_length", o.max_length, "maximum tokens per example; longer examples are truncated and counted")
      .require(o.max_length >= 2 && o.max_length <= (1 << 24), "must be at least 2 and at most 16777216");
  in.get("packing", o.packing,
         "fill each batch with examples up to batch_size · max_length tokens; attention stays within each example");
  in.get("system", o.system, "system message for conversations without one");
  in.get("cache", o.cache, "folder of the token cache; \"auto\": in the user's cache folder; \"\": no cache")
      .require(o.cache.empty() || o.cache == "auto" || o.cache.front() == '/',
               "must be \"auto\", \"\" or an absolute path");
  return o;
}

void Dataset::add(Example example, int64_t max_length) {
  ++num_read;
  const auto length = static_cast<int64_t>(example.ids.size());
  if (length > max_length) {
    ++truncated;
    truncated_tokens += length - max_length;
    example.ids.resize(static_cast<std::size_t>(max_length));
    example.labels.resize(static_cast<std::size_t>(max_length));
  }
  // No position predicts the first token.
  const auto learned = example.labels.empty() ? 0
                                              : std::count_if(example.labels.begin() + 1, example.labels.end(),
                                                              [](int64_t label) { return label != ignored_label; });
  if (learned == 0) {
    ++skipped;
    return;
  }
  tokens += static_cast<int64_t>(example.ids.size());
  num_target_tokens += learned;
  examples.push_back(std::move(example));
}

std::string Dataset::source(const Example& example) const {
  return files.at(static_cast<std::size_t>(example.file)) + ":" + std::to_string(example.line);
}

namespace {

/// Reads the records of one file and adds their examples to the set.
class RecordLoader {
 public:
  RecordLoader(Dataset& set, const DataOptions& options, const TextPipeline& text)
      : set_(set), options_(options), text_(text), encoder_(text), renderer_(text.chat_template.get()) {}

  void load(const std::string& path) {
    const data::RecordFile file(path);
    set_.files.push_back(file.name());
    for (std::size_t i = 0; i < file.size(); ++i, ++records_) add(file, i);
  }

 private:
  void add(const data::RecordFile& file, std::size_t index) {
    const data::Json json = file.parse(index);
    const std::string where = file.where(index);
    if (set_.format.empty()) set_.format = data::detect_format(json, options_.formats, where);
    data::Record record = data::read_record(json, set_.format, options_, text_.chat_template != nullptr, where);
    const int64_t empty = data::num_empty_answers(record);
    const StringList thinking = data::thinking_of(record);
    const auto rendered = renderer_.render(std::move(record));
    set_.cut_thinking += data::num_cut(thinking, rendered);
    if (rendered.empty()) ++set_.skipped, ++set_.num_read;
    const std::size_t before = set_.examples.size();
    for (const data::RenderedExample& one : rendered) {
      Example example = encoder_.encode(one);
      example.file = static_cast<int64_t>(set_.files.size()) - 1, example.line = file.line(index);
      example.record = records_;
      set_.add(std::move(example), options_.max_length);
    }
    if (set_.examples.size() > before) set_.empty_answers += empty;
  }

  Dataset& set_;
  const DataOptions& options_;
  const TextPipeline& text_;
  data::Encoder encoder_;
  data::Renderer renderer_;
  int64_t records_ = 0;
};

}  // namespace

Dataset load_dataset(const StringList& files, const DataOptions& options, const TextPipeline& text) {
  Dataset set;
  set.format = options.format == "auto" ? "" : options.format;
  RecordLoader loader(set, options, text);
  for (const std::string& path : files) loader.load(path);
  if (set.examples.empty()) {
    std::string names;
    for (const std::string& name : set.files) names += (names.empty() ? "" : ", ") + name;
    throw InputError(names + ": no example has target tokens" +
                     (set.truncated > 0 ? " within max_length = " + std::to_string(options.max_length) : ""));
  }
  return set;
}

Dataset split_dataset(Dataset& train, double eval_split, uint64_t seed) {
  std::vector<int64_t> records;  // those that have examples, in order
  for (const Example& example : train.examples)
    if (records.empty() || records.back() != example.record) records.push_back(example.record);
  const std::size_t all = records.size();
  const auto share = static_cast<std::size_t>(std::llround(eval_split * static_cast<double>(all)));
  const std::size_t held = std::max<std::size_t>(share, 1);
  if (held >= all) throw InputError("eval_split leaves no record to train on: there are " + std::to_string(all));
  // A separate order, so that the split is independent of the first epoch.
  const std::vector<std::size_t> order = epoch_order(all, seed, -1);
  std::set<int64_t> chosen;
  for (std::size_t i = 0; i < held; ++i) chosen.insert(records[order[i]]);
  Dataset rest, eval;
  rest.format = eval.format = train.format;
  rest.files = eval.files = train.files;
  for (Example& example : train.examples) {
    const bool is_held = chosen.contains(example.record);
    (is_held ? eval : rest).add(std::move(example));
  }
  rest.truncated = train.truncated, rest.truncated_tokens = train.truncated_tokens, rest.skipped = train.skipped;
  rest.empty_answers = train.empty_answers, rest.num_read = train.num_read;
  rest.cut_thinking = train.cut_thinking;
  rest.cached = eval.cached = train.cached, rest.cache_error = train.cache_error;
  train = std::move(rest);
  return eval;
}

}  // namespace peft
