#include "peft/export/merge.h"

#include <iostream>

#include "arguments.h"
#include "commands.h"
#include "merge_report.h"
#include "peft/base/bytes.h"
#include "peft/base/error.h"
#include "peft/runtime/initialize.h"

namespace {

using namespace peft;

uint64_t parse_shard_size(const std::string& text) {
  const auto bytes = parse_bytes(text);
  if (!bytes) throw ConfigError("--max-shard-size: '" + printable(text) + "' is not a size; write 500MB or 5GB");
  return *bytes;
}

}  // namespace

Outcome merge_command(const StringList& words) {
  AdapterArguments from;
  std::string output, dtype, max_shard_size = "5GB";
  StringList plugin_paths;
  Arguments arguments("merge --model M --adapter DIR... --output DIR [options]");
  from.add_to(arguments);
  arguments.required("output", output, "DIR", "folder that does not exist yet");
  arguments.option("dtype", dtype, "NAME", "float32, bfloat16 or float16; without it: as stored (of a GGUF: float32)");
  arguments.option("max-shard-size", max_shard_size, "SIZE", "largest file: bytes, or with KB, MB, GB");
  arguments.plugin_path(plugin_paths);
  if (!arguments.parse(words)) return {};
  arguments.require(!from.adapters.empty(), "--adapter must be given");
  arguments.require(dtype.empty() || dtype == "float32" || dtype == "bfloat16" || dtype == "float16",
                    "--dtype must be float32, bfloat16 or float16");

  initialize_libtorch();
  Plugins plugins(Plugins::search_path(plugin_paths));
  const MergeOptions options{.from = from.model_options(),
                             .output = output,
                             .dtype = dtype,
                             .max_shard_size = parse_shard_size(max_shard_size)};
  const MergeReport report = merge(options, plugins);
  print_notes(report.notes);
  print_merge_report(report, "--dtype float32");
  std::cout << "written: " << printable_path(output) << " (" << report.files.size()
            << (report.files.size() == 1 ? " file" : " files") << " of weights; merge_receipt.json lists each module)"
            << std::endl;
  return {};
}
