#pragma once
// The commands of peft-run: plain arguments in, exit code out. Errors are thrown; main() prints them.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "peft/export/combine.h"
#include "peft/options/options.h"

struct TrainArguments {
  std::string experiment;             ///< path of the TOML file
  peft::StringList sets;              ///< `table.key=value`, in order
  std::optional<std::string> resume;  ///< a checkpoint's folder, or "": the newest of output_dir
};

struct PlanArguments {
  std::string experiment;
  peft::StringList sets;
};

struct ListArguments {
  peft::StringList plugin_paths;  ///< absolute
};

struct DescribeArguments {
  std::string what;       ///< "kind/name" of a plugin, a table of the core, or "" for everything
  bool markdown = false;  ///< as docs/experiment.md
  peft::StringList plugin_paths;
};

struct GenerateArguments {
  std::string model;          ///< Hugging Face folder or .gguf file
  peft::StringList adapters;  ///< folders; none: the base alone
  bool any_base = false;      ///< also adapters that were trained on another base
  std::string prompt;
  std::optional<std::string> system;  ///< system message
  int64_t max_new_tokens = 128;
  double temperature = 0;  ///< 0: greedy
  int64_t top_k = 0;       ///< 0: no limit
  double top_p = 1;        ///< 1: no limit
  uint64_t seed = 0;
  bool raw = false;                ///< the prompt as it is, without the chat template
  std::string precision = "fp32";  ///< name of a precision plugin
  std::string device = "auto";
  peft::StringList plugin_paths;
};

struct EvalArguments {
  std::string model;
  peft::StringList adapters;  ///< folders
  bool together = false;      ///< all at once, the first outermost; else each by itself
  peft::StringList data;      ///< .json or .jsonl files
  std::string format = "auto", system;
  int64_t max_length = 512, batch_size = 8;
  std::string precision = "fp32", device = "auto";
  bool any_base = false;
  peft::StringList plugin_paths;
};

struct MergeArguments {
  std::string model;
  peft::StringList adapters;
  std::string output;
  std::string dtype;                   ///< "float32", "bfloat16", "float16", or "": as stored
  std::string max_shard_size = "5GB";  ///< bytes, or with KB, MB, GB
  bool any_base = false;
  peft::StringList plugin_paths;
};

struct ExportArguments {
  peft::CombineOptions from;
  std::string output;
  std::string as;    ///< "lora", "gguf", "gguf-adapter"
  std::string type;  ///< of a GGUF: "f32", "f16", "bf16", "q8_0"; "": its own default
  peft::StringList plugin_paths;
};

struct SelfcheckArguments {
  std::string what;          ///< "adapter/NAME"
  peft::StringList options;  ///< `key = value` lines of its table
  peft::StringList plugin_paths;
};

int train_command(const TrainArguments& arguments);
int plan_command(const PlanArguments& arguments);
int list_command(const ListArguments& arguments);
int describe_command(const DescribeArguments& arguments);
int generate_command(const GenerateArguments& arguments);
int eval_command(const EvalArguments& arguments);
int merge_command(const MergeArguments& arguments);
int export_command(const ExportArguments& arguments);
int selfcheck_command(const SelfcheckArguments& arguments);

/// A table of an experiment that belongs to the core.
struct CoreTable {
  std::string name;                       ///< as in TOML
  std::string purpose;                    ///< one sentence
  std::vector<peft::OptionInfo> options;  ///< from the very code that reads it, given an empty Options
};
/// [model], [data], [training], [plugins]: in the order in which an experiment shows them.
std::vector<CoreTable> core_tables();
