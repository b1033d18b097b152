#include "inference.h"

#include <torch/types.h>

#include "peft/adapters/files.h"
#include "peft/models/load.h"
#include "peft/pretrained/open.h"
#include "peft/train/plugin_calls.h"
#include "peft/train/train.h"
#include "receipt.h"
#include "start.h"

namespace {

std::unique_ptr<peft::Precision> make_precision(peft::Plugins& plugins, const std::string& name) {
  peft::Options none;
  return plugins.make<peft::Precision>(name, none);
}

/// The allocator comes before the first tensor, which a precision may hold.
peft::StringList searched(const peft::StringList& plugin_paths) {
  start_torch();
  return peft::Plugins::search_path(plugin_paths);
}

}  // namespace

Inference::Inference(const std::string& model, const peft::StringList& adapters, const std::string& precision,
                     const std::string& device, const peft::StringList& plugin_paths)
    : plugins_(searched(plugin_paths)),
      precision_(make_precision(plugins_, precision)),
      device_(peft::choose_device(device)),
      checkpoint_(peft::open_pretrained(model)),
      change_(peft::adapter_tokenizer_changes(*checkpoint_, adapters)),
      text_(peft::load_text(*peft::base_with_vocabulary(checkpoint_, change_, {}))) {}

Inference::Adapted Inference::load(const peft::StringList& folders, bool any_base) {
  const auto base = peft::base_with_vocabulary(checkpoint_, change_, folders);
  Adapted out{peft::load_model(base, peft::base_dtype(*precision_), device_), {}};
  for (const std::string& folder : folders) {
    auto loaded = peft::load_adapter(folder, plugins_, *out.model, peft::adapter_dtype(*precision_), any_base);
    if (loaded.base == peft::BaseMatch::unknown) note_unknown_bases({folder});
    out.adapters.push_back(std::move(loaded.adapter));
  }
  return out;
}
