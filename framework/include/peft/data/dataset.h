#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/options/options.h"
#include "peft/text/text.h"

namespace peft {

/// The label of a token that the loss ignores.
constexpr int64_t ignored_label = -100;

/// One tokenized example. labels[i] is ids[i] for a target token, else ignored_label. Labels are not shifted: the loss
/// shifts them by one.
struct Example {
  std::vector<int64_t> ids, labels;
  int64_t file = 0, line = 0;  ///< its source: an index into Dataset::files, and the line, from 1
  int64_t record = 0;          ///< the record it is of, counted through all files; a record can give several examples
};

/// The [data] table.
struct DataOptions {
  StringList train;             ///< .json or .jsonl files
  StringList eval;              ///< files, or none
  double eval_split = 0;        ///< ratio of the records of train held out, if eval is empty
  std::string format = "auto";  ///< a format's name, or "auto": the first one that fits the first record
  StringList formats;           ///< those that "auto" chooses among, from the objective; empty: all
  int64_t max_length = 512;     ///< tokens; longer examples are truncated and counted
  bool packing = false;         ///< fill each batch up to batch_size · max_length tokens
  std::string system;           ///< system message for conversations without one
  std::string cache = "auto";   ///< folder of tokenized data, as TokenCache takes it
};
PEFT_API DataOptions read_data_options(Options& in);

struct Dataset {
  std::vector<Example> examples;
  StringList files;              ///< names for messages, printable
  std::string format;            ///< the one used
  int64_t truncated = 0;         ///< examples truncated to max_length
  int64_t truncated_tokens = 0;  ///< tokens dropped by that
  int64_t skipped = 0;           ///< examples without a target token after truncation
  int64_t empty_answers = 0;     ///< answers, completions and texts that are blank: the model learns to end at once
  int64_t num_read = 0;          ///< examples before any was skipped or held out
  int64_t cut_thinking = 0;      ///< answers whose thinking the chat template cuts out, so it is not learned
  int64_t tokens = 0, num_target_tokens = 0;
  bool cached = false;      ///< read from a TokenCache
  std::string cache_error;  ///< why the TokenCache could not store it, or ""

  /// Truncates and counts an example, and adds it unless no target token is left.
  PEFT_API void add(Example example, int64_t max_length = std::numeric_limits<int64_t>::max());
  PEFT_API std::string source(const Example& example) const;  ///< "file:line"
};

/// Reads and tokenizes. Throws InputError with file and line; a data set without target tokens is an error.
PEFT_API Dataset load_dataset(const StringList& files, const DataOptions& options, const TextPipeline& text);

/// Moves the examples of a random `eval_split` of the records (at least one) out of `train`; a pure function of the
/// seed. The counts of what was read stay with `train`.
PEFT_API Dataset split_dataset(Dataset& train, double eval_split, uint64_t seed);

}  // namespace peft
