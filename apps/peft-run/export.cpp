#include <iostream>

#include "commands.h"
#include "peft/base/error.h"
#include "peft/export/gguf.h"
#include "receipt.h"
#include "start.h"

namespace {

void written(const std::string& folder, const std::string& what) {
  std::cout << "written: " << peft::printable(folder, 4096) << " (" << what << ")" << std::endl;
}

}  // namespace

int export_command(const ExportArguments& arguments) {
  start_torch();
  peft::Plugins plugins(peft::Plugins::search_path(arguments.plugin_paths));
  const peft::CombineOptions& from = arguments.from;
  if (arguments.as == "lora") {
    note_unknown_bases(peft::export_lora(from, arguments.output, plugins));
    written(arguments.output, "adapter_config.json, adapter_model.safetensors");
  } else if (arguments.as == "gguf-adapter") {
    peft::GgufAdapterOptions options{.adapters = from, .output = arguments.output};
    if (!arguments.type.empty()) options.type = arguments.type;
    note_unknown_bases(peft::export_gguf_adapter(options, plugins));
    written(arguments.output, "adapter.gguf in " + options.type + ", Modelfile");
  } else {
    peft::GgufModelOptions options{
        .model = from.model, .adapters = from.adapters, .output = arguments.output, .any_base = from.any_base};
    if (!arguments.type.empty()) options.type = arguments.type;
    const peft::MergeReport receipt = peft::export_gguf_model(options, plugins);
    if (!receipt.modules.empty()) print_receipt(receipt, "--type f32");
    note_unknown_bases(receipt.unknown_bases);
    written(arguments.output, "model.gguf in " + options.type + ", Modelfile");
  }
  return 0;
}
