#include "inference.h"

#include <torch/types.h>

#include "merge_report.h"
#include "peft/adapters/adapter_vocabulary.h"
#include "peft/models/load.h"
#include "peft/pretrained/open.h"
#include "peft/runtime/device.h"
#include "peft/runtime/initialize.h"

namespace {

std::unique_ptr<peft::Precision> make_precision(peft::Plugins& plugins, const std::string& name) {
  peft::Options none;
  return plugins.make<peft::Precision>(name, none);
}

/// Initializes libtorch before a plugin makes the first tensor.
peft::StringList initialized_search_path(const peft::StringList& plugin_paths) {
  peft::initialize_libtorch();
  return peft::Plugins::search_path(plugin_paths);
}

peft::VocabularyOverlay overlay_of(const peft::PretrainedModel& base, const AdapterArguments& from) {
  peft::VocabularyOverlay overlay = peft::adapter_tokenizer_changes(base, from.adapters);
  if (!from.chat_template.empty())
    overlay.tokenizer_config["chat_template"] = peft::find_chat_template(base, from.chat_template);
  return overlay;
}

}  // namespace

Inference::Inference(const AdapterArguments& from, const DeviceArguments& device, const peft::StringList& plugin_paths)
    : plugins_(initialized_search_path(plugin_paths)),
      precision_(make_precision(plugins_, device.precision)),
      device_(peft::choose_device(device.device)),
      base_(peft::open_pretrained(from.model, {.ignore_unknown = from.ignore_unknown})),
      overlay_(overlay_of(*base_, from)),
      text_(peft::load_text(*peft::base_with_vocabulary(base_, overlay_, {}))),
      how_{.any_base = from.any_base, .ignore_unknown = from.ignore_unknown} {
  print_notes({.model = peft::open_notes(*base_), .adapters = {}});
}

Inference::AdaptedModel Inference::load(const peft::StringList& folders) {
  const auto base = peft::base_with_vocabulary(base_, overlay_, folders);
  AdaptedModel out{peft::load_model(base, precision_->base_dtype(), device_), {}};
  for (const std::string& folder : folders) {
    auto loaded = peft::load_adapter(folder, plugins_, *out.model, precision_->adapter_dtype(), how_);
    print_notes({.model = {}, .adapters = loaded.notes});
    out.adapters.push_back(std::move(loaded.adapter));
  }
  return out;
}
