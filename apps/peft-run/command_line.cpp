// The only user of Boost.Program_options.
#include "command_line.h"

#include <boost/program_options.hpp>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "peft/base/error.h"
#include "peft/plugin/abi.h"

namespace {

namespace po = boost::program_options;
using peft::StringList;

const char* const overview =
    R"(usage: peft-run EXPERIMENT.toml [--set TABLE.KEY=VALUE]...   train; --resume goes on from the newest checkpoint
       peft-run plan EXPERIMENT.toml [--set ...]             what would be trained, and what it costs
       peft-run generate --model M [--adapter DIR] --prompt TEXT
       peft-run eval --model M --data FILE [--adapter DIR]   loss, perplexity and accuracy, with the adapter and without
       peft-run merge --model M --adapter DIR --output DIR   the model with its adapter folded in, as a Hugging Face folder
       peft-run export --model M --adapter DIR --as gguf --output DIR    for llama.cpp and Ollama; or adapters as one
       peft-run selfcheck adapter/NAME                       tries a method's gradients, folding and files
       peft-run list                                         every plugin there is
       peft-run describe [KIND/NAME | TABLE]                 every option, with type, default and meaning
'peft-run COMMAND --help' tells a command's options; an experiment named like a command is written ./list
)";

/// One command's options, and how its usage begins.
struct Syntax {
  std::string usage;
  po::options_description options{"options"};
  po::options_description hidden;  ///< what is given without a name
  po::positional_options_description positional;

  explicit Syntax(std::string line) : usage("usage: peft-run " + std::move(line)) {
    options.add_options()("help,h", "show this");
  }
  std::string help() const {
    std::ostringstream text;
    text << usage << "\n" << options;
    return text.str();
  }
};

/// False: --help was asked for.
bool parse(const StringList& words, const Syntax& syntax, po::variables_map& values) {
  // No guessing of shortened names: a later option must not change what an old script means.
  po::options_description all;
  all.add(syntax.options).add(syntax.hidden);
  const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  try {
    po::store(po::command_line_parser(words).options(all).positional(syntax.positional).style(style).run(), values);
    if (values.count("help") != 0) return false;
    po::notify(values);
  } catch (const po::error& error) {
    throw UsageError(peft::printable(error.what(), 1000), syntax.help());
  }
  return true;
}

StringList absolute(StringList paths) {
  for (std::string& path : paths) path = std::filesystem::absolute(path).lexically_normal().string();
  return paths;
}

po::typed_value<std::string>* text(std::string& value, const char* name) { return po::value(&value)->value_name(name); }

void add_run(Syntax& syntax, std::string& precision, std::string& device) {
  syntax.options.add_options()("precision", text(precision, "NAME")->default_value(precision), "a precision plugin")(
      "device", text(device, "NAME")->default_value(device), "auto, cpu, cuda, cuda:1, ...");
}

void add_plugin_path(Syntax& syntax, StringList& paths) {
  const auto take = [&paths](const StringList& given) { paths = absolute(given); };
  syntax.options.add_options()("plugin-path", po::value<StringList>()->notifier(take)->value_name("DIR"),
                               "search this folder for plugins first (may be repeated)");
}

/// --model, --adapter and --any-base, as every command takes them that reads an adapter.
void add_model(Syntax& syntax, std::string& model, StringList& adapters, bool& any_base) {
  syntax.options.add_options()("model", text(model, "PATH")->required(), "Hugging Face folder, or .gguf file")(
      "adapter", po::value(&adapters)->value_name("DIR"),
      "folder with adapter_config.json and adapter_model.safetensors; may be repeated")(
      "any-base", po::bool_switch(&any_base), "take adapters that say they were trained on another base");
}

void require(bool ok, const std::string& message, const Syntax& syntax) {
  if (!ok) throw UsageError(message, syntax.help());
}

/// --resume alone, or with a folder behind it.
void add_resume(Syntax& syntax, PlanArguments&) { static_cast<void>(syntax); }
void add_resume(Syntax& syntax, TrainArguments& out) {
  const auto take = [&out](const std::string& given) { out.resume = given; };
  syntax.options.add_options()("resume",
                               po::value<std::string>()->implicit_value("")->notifier(take)->value_name("DIR"),
                               "go on from this checkpoint; without DIR: from the newest whole one of output_dir");
}

/// `--resume DIR` as one word, which is how an option whose value may be left out takes it; an experiment is no DIR.
StringList with_resume_joined(const StringList& words) {
  StringList joined;
  for (const std::string& word : words) {
    const bool value =
        !joined.empty() && joined.back() == "--resume" && !word.starts_with('-') && !word.ends_with(".toml");
    if (value)
      joined.back() += "=" + word;
    else
      joined.push_back(word);
  }
  return joined;
}

/// Training and planning read the same.
template <class Arguments>
Command parse_experiment(const StringList& words, const std::string& line) {
  Arguments out;
  Syntax syntax(line);
  add_resume(syntax, out);
  syntax.options.add_options()("set", po::value(&out.sets)->value_name("TABLE.KEY=VALUE"),
                               "goes over the file; may be repeated");
  syntax.hidden.add_options()("experiment", po::value(&out.experiment));
  syntax.positional.add("experiment", 1);
  po::variables_map values;
  if (!parse(with_resume_joined(words), syntax, values)) return Information{syntax.help()};
  if (out.experiment.empty()) throw UsageError("no experiment given", syntax.help());
  return out;
}

Command parse_list(const StringList& words) {
  ListArguments out;
  Syntax syntax("list [--plugin-path DIR]...");
  add_plugin_path(syntax, out.plugin_paths);
  po::variables_map values;
  if (!parse(words, syntax, values)) return Information{syntax.help()};
  return out;
}

Command parse_describe(const StringList& words) {
  DescribeArguments out;
  Syntax syntax(
      "describe [KIND/NAME | TABLE] [--markdown] [--plugin-path DIR]...\n"
      "e.g. adapter/lora or training; without one: everything");
  add_plugin_path(syntax, out.plugin_paths);
  syntax.options.add_options()("markdown", po::bool_switch(&out.markdown), "as the page docs/experiment.md");
  syntax.hidden.add_options()("what", po::value(&out.what));
  syntax.positional.add("what", 1);
  po::variables_map values;
  if (!parse(words, syntax, values)) return Information{syntax.help()};
  return out;
}

void check(const GenerateArguments& arguments, const Syntax& syntax) {
  require(arguments.max_new_tokens > 0, "--max-new-tokens must be positive", syntax);
  require(std::isfinite(arguments.temperature) && arguments.temperature >= 0, "--temperature must be 0 or more",
          syntax);
  require(arguments.top_k >= 0, "--top-k must be 0 (no limit) or more", syntax);
  require(arguments.top_p > 0 && arguments.top_p <= 1, "--top-p must be above 0 and at most 1", syntax);
  require(!(arguments.raw && arguments.system), "--system needs the chat template that --raw turns off", syntax);
}

Command parse_generate(const StringList& words) {
  GenerateArguments out;
  std::string system;
  Syntax syntax("generate --model M [--adapter DIR] --prompt TEXT [options]");
  add_model(syntax, out.model, out.adapters, out.any_base);
  syntax.options.add_options()("prompt", text(out.prompt, "TEXT")->required(), "what the user says")(
      "system", text(system, "TEXT"), "system message before it")(
      "max-new-tokens", po::value(&out.max_new_tokens)->value_name("N")->default_value(out.max_new_tokens),
      "longest answer, in tokens")(
      "temperature", po::value(&out.temperature)->value_name("T")->default_value(out.temperature), "0: greedy")(
      "top-k", po::value(&out.top_k)->value_name("K")->default_value(out.top_k), "0: no limit")(
      "top-p", po::value(&out.top_p)->value_name("P")->default_value(out.top_p), "1: no limit")(
      "seed", po::value(&out.seed)->value_name("N")->default_value(out.seed), "of the random choice")(
      "raw", po::bool_switch(&out.raw), "the prompt as it is, without the chat template");
  add_run(syntax, out.precision, out.device);
  add_plugin_path(syntax, out.plugin_paths);
  po::variables_map values;
  if (!parse(words, syntax, values)) return Information{syntax.help()};
  if (values.count("system") != 0) out.system = system;
  check(out, syntax);
  return out;
}

Command parse_eval(const StringList& words) {
  EvalArguments out;
  Syntax syntax("eval --model M --data FILE [--adapter DIR]... [options]");
  add_model(syntax, out.model, out.adapters, out.any_base);
  syntax.options.add_options()("together", po::bool_switch(&out.together),
                               "all adapters at once, the first outermost; without it each by itself");
  const auto number = [](int64_t& value) { return po::value(&value)->value_name("N")->default_value(value); };
  syntax.options.add_options()("data", po::value(&out.data)->value_name("FILE")->required(),
                               ".json or .jsonl; may be repeated")(
      "format", text(out.format, "NAME")->default_value(out.format), "as [data] format in an experiment")(
      "system", text(out.system, "TEXT"), "system message of conversations that have none")(
      "max-length", number(out.max_length), "tokens; longer examples are cut")("batch-size", number(out.batch_size),
                                                                               "examples at a time");
  add_run(syntax, out.precision, out.device);
  add_plugin_path(syntax, out.plugin_paths);
  po::variables_map values;
  if (!parse(words, syntax, values)) return Information{syntax.help()};
  require(out.max_length > 1, "--max-length must be at least 2", syntax);
  require(out.batch_size > 0, "--batch-size must be positive", syntax);
  return out;
}

Command parse_merge(const StringList& words) {
  MergeArguments out;
  Syntax syntax("merge --model M --adapter DIR... --output DIR [options]");
  add_model(syntax, out.model, out.adapters, out.any_base);
  syntax.options.add_options()("output", text(out.output, "DIR")->required(), "folder that does not exist yet")(
      "dtype", text(out.dtype, "NAME"), "float32, bfloat16 or float16; without it: as stored (of a GGUF: float32)")(
      "max-shard-size", text(out.max_shard_size, "SIZE")->default_value(out.max_shard_size),
      "largest file: bytes, or with KB, MB, GB");
  add_plugin_path(syntax, out.plugin_paths);
  po::variables_map values;
  if (!parse(words, syntax, values)) return Information{syntax.help()};
  require(!out.adapters.empty(), "--adapter must be given", syntax);
  require(out.dtype.empty() || out.dtype == "float32" || out.dtype == "bfloat16" || out.dtype == "float16",
          "--dtype must be float32, bfloat16 or float16", syntax);
  return out;
}

/// What combines adapters, and what each way out can take.
void add_combination(Syntax& syntax, peft::Combination& how) {
  std::string methods;
  for (const std::string& method : peft::combination_methods()) methods += (methods.empty() ? "" : ", ") + method;
  syntax.options.add_options()("weight", po::value(&how.weights)->value_name("W"),
                               "of each --adapter, in their order; negative: --weight=-1; without any: 1 each")(
      "combine", text(how.method, "METHOD")->default_value(how.method),
      ("as HF PEFT's add_weighted_adapter: " + methods).c_str())(
      "density", po::value(&how.density)->value_name("D")->default_value(how.density),
      "share of the values that ties, dare_... and magnitude_prune keep")(
      "svd-rank", po::value(&how.rank)->value_name("R"), "rank of svd; without it: the adapters' largest")(
      "majority-sign", text(how.majority_sign, "NAME")->default_value(how.majority_sign),
      "of ties: total (of the values) or frequency (of the signs)")(
      "seed", po::value(&how.seed)->value_name("N")->default_value(how.seed), "of dare_...'s random choice");
}

Command parse_export(const StringList& words) {
  ExportArguments out;
  Syntax syntax("export --model M [--adapter DIR]... --as FORM --output DIR [options]");
  add_model(syntax, out.from.model, out.from.adapters, out.from.any_base);
  syntax.options.add_options()("as", text(out.as, "FORM")->required(),
                               "gguf: the merged model; gguf-adapter: the adapter alone; lora: one HF PEFT folder")(
      "output", text(out.output, "DIR")->required(), "folder that does not exist yet")(
      "type", text(out.type, "NAME"), "of a GGUF: f32, f16, bf16, q8_0; without it: f16 (model), f32 (adapter)");
  add_combination(syntax, out.from.combination);
  add_plugin_path(syntax, out.plugin_paths);
  po::variables_map values;
  if (!parse(words, syntax, values)) return Information{syntax.help()};
  require(out.as == "gguf" || out.as == "gguf-adapter" || out.as == "lora", "--as must be gguf, gguf-adapter or lora",
          syntax);
  require(out.as == "gguf" || !out.from.adapters.empty(), "--adapter must be given", syntax);
  require(out.as != "lora" || out.type.empty(), "--type is of a GGUF", syntax);
  const bool combines = !out.from.combination.weights.empty() || !values["combine"].defaulted();
  require(out.as != "gguf" || !combines,
          "--as gguf adds adapters up; combine them with --as lora first, then export the result", syntax);
  return out;
}

Command parse_selfcheck(const StringList& words) {
  SelfcheckArguments out;
  Syntax syntax("selfcheck adapter/NAME [--set KEY=VALUE]... [--plugin-path DIR]...");
  syntax.options.add_options()("set", po::value(&out.options)->value_name("KEY=VALUE"),
                               "an option of the method, in TOML; may be repeated");
  add_plugin_path(syntax, out.plugin_paths);
  syntax.hidden.add_options()("what", po::value(&out.what));
  syntax.positional.add("what", 1);
  po::variables_map values;
  if (!parse(words, syntax, values)) return Information{syntax.help()};
  require(!out.what.empty(), "no method given", syntax);
  return out;
}

}  // namespace

Command parse_command_line(int argc, const char* const* argv) {
  StringList words(argv + std::min(argc, 1), argv + argc);
  if (words.empty()) throw UsageError("nothing to do", overview);
  const std::string first = words.front();
  if (first == "--help" || first == "-h" || first == "help") return Information{overview};
  if (first == "--version") return Information{"peft-run " PEFT_VERSION " (" PEFT_ABI ")\n"};
  const StringList rest(words.begin() + 1, words.end());
  if (first == "plan") return parse_experiment<PlanArguments>(rest, "plan EXPERIMENT.toml [--set TABLE.KEY=VALUE]...");
  if (first == "list") return parse_list(rest);
  if (first == "describe") return parse_describe(rest);
  if (first == "generate") return parse_generate(rest);
  if (first == "eval") return parse_eval(rest);
  if (first == "merge") return parse_merge(rest);
  if (first == "export") return parse_export(rest);
  if (first == "selfcheck") return parse_selfcheck(rest);
  // A mistyped command would otherwise be told as a file that is not there.
  if (first.find_first_of("./-") == std::string::npos && !std::filesystem::exists(first)) {
    const std::string near =
        peft::nearest(first, {"plan", "list", "describe", "generate", "eval", "merge", "export", "selfcheck"});
    throw UsageError(
        "no command '" + peft::printable(first) + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?"),
        overview);
  }
  return parse_experiment<TrainArguments>(words, "EXPERIMENT.toml [--set TABLE.KEY=VALUE]... [--resume [DIR]]");
}
