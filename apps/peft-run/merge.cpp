#include "peft/export/merge.h"

#include <iostream>

#include "commands.h"
#include "peft/base/bytes.h"
#include "peft/base/error.h"
#include "receipt.h"
#include "start.h"

namespace {

using namespace peft;

uint64_t bytes_of(const std::string& text) {
  const auto bytes = parse_bytes(text);
  if (!bytes) throw ConfigError("--max-shard-size: '" + printable(text) + "' is no size; write 500MB or 5GB");
  return *bytes;
}

}  // namespace

int merge_command(const MergeArguments& arguments) {
  start_torch();
  Plugins plugins(Plugins::search_path(arguments.plugin_paths));
  const MergeOptions options{.model = arguments.model,
                             .adapters = arguments.adapters,
                             .output = arguments.output,
                             .any_base = arguments.any_base,
                             .dtype = arguments.dtype,
                             .max_shard_size = bytes_of(arguments.max_shard_size)};
  const MergeReport receipt = merge(options, plugins);
  print_receipt(receipt, "--dtype float32");
  note_unknown_bases(receipt.unknown_bases);
  std::cout << "written: " << printable(arguments.output, 4096) << " (" << receipt.files.size()
            << (receipt.files.size() == 1 ? " file" : " files") << " of weights; merge_receipt.json tells each module)"
            << std::endl;
  return 0;
}
