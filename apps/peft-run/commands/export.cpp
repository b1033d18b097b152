#include <iostream>

#include "arguments.h"
#include "commands.h"
#include "merge_report.h"
#include "peft/base/error.h"
#include "peft/export/combine.h"
#include "peft/export/gguf.h"
#include "peft/runtime/initialize.h"

namespace {

struct ExportArguments {
  AdapterArguments from;
  peft::Combination combination;
  std::string output;
  std::string as;    ///< "lora", "gguf", "gguf-adapter"
  std::string type;  ///< of a GGUF: "f32", "f16", "bf16", "q8_0"; "": the default of `as`
  peft::StringList plugin_paths;
};

void add_combination(Arguments& arguments, peft::Combination& how, std::optional<int64_t>& rank) {
  std::string methods;
  for (const std::string& method : peft::combination_methods()) methods += (methods.empty() ? "" : ", ") + method;
  arguments.option("weight", how.weights, "W",
                   "of each --adapter, in their order; negative: --weight=-1; without any: 1 each");
  arguments.option("combine", how.method, "METHOD", "as HF PEFT's add_weighted_adapter: " + methods);
  arguments.option("density", how.density, "D", "share of the values that ties, dare_... and magnitude_prune keep");
  arguments.option("svd-rank", rank, "R", "rank of svd; without it: the adapters' largest");
  arguments.option("majority-sign", how.majority_sign, "NAME",
                   "of ties: total (of the values) or frequency (of the signs)");
  arguments.option("seed", how.seed, "N", "of dare_...'s random choice");
}

/// False: only the help was asked for.
bool read(const peft::StringList& words, ExportArguments& out) {
  std::optional<int64_t> rank;
  Arguments arguments("export --model M [--adapter DIR]... --as FORM --output DIR [options]");
  out.from.add_to(arguments);
  arguments.required("as", out.as, "FORM",
                     "gguf: the merged model; gguf-adapter: the adapter alone; lora: one HF PEFT folder");
  arguments.required("output", out.output, "DIR", "folder that does not exist yet");
  arguments.option("type", out.type, "NAME", "of a GGUF: f32, f16, bf16, q8_0; without it: f16 (model), f32 (adapter)");
  add_combination(arguments, out.combination, rank);
  arguments.plugin_path(out.plugin_paths);
  if (!arguments.parse(words)) return false;
  out.combination.rank = rank.value_or(0);
  arguments.require(out.as == "gguf" || out.as == "gguf-adapter" || out.as == "lora",
                    "--as must be gguf, gguf-adapter or lora");
  arguments.require(out.as == "gguf" || !out.from.adapters.empty(), "--adapter must be given");
  arguments.require(out.as != "lora" || out.type.empty(), "--type applies to a GGUF only");
  const bool combines = !out.combination.weights.empty() || arguments.has("combine");
  arguments.require(out.as != "gguf" || !combines,
                    "--as gguf adds adapters up; combine them with --as lora first, then export the result");
  return true;
}

void print_written(const std::string& folder, const std::string& what) {
  std::cout << "written: " << peft::printable_path(folder) << " (" << what << ")" << std::endl;
}

}  // namespace

Outcome export_command(const peft::StringList& words) {
  ExportArguments given;
  if (!read(words, given)) return {};
  peft::initialize_libtorch();
  peft::Plugins plugins(peft::Plugins::search_path(given.plugin_paths));
  const peft::CombineOptions from{given.from.model_options(), given.combination};
  if (given.as == "lora") {
    print_notes(peft::export_lora(from, given.output, plugins));
    print_written(given.output, "adapter_config.json, adapter_model.safetensors");
  } else if (given.as == "gguf-adapter") {
    peft::GgufAdapterOptions options{.adapters = from, .output = given.output};
    if (!given.type.empty()) options.type = given.type;
    print_notes(peft::export_gguf_adapter(options, plugins));
    print_written(given.output, "adapter.gguf in " + options.type + ", Modelfile");
  } else {
    peft::GgufModelOptions options{.from = from.from, .output = given.output};
    if (!given.type.empty()) options.type = given.type;
    const peft::MergeReport report = peft::export_gguf_model(options, plugins);
    print_notes(report.notes);
    if (!report.modules.empty()) print_merge_report(report, "--type f32");
    print_written(given.output, "model.gguf in " + options.type + ", Modelfile");
  }
  return {};
}
