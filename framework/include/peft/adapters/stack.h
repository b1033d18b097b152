#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "peft/adapters/adapter.h"
#include "peft/adapters/calibration.h"
#include "peft/base/export.h"
#include "peft/options/document.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// One of the adapters of an experiment.
struct NamedAdapter {
  std::string name;    ///< HF's adapter_name: "default", or the subfolder it is saved in
  std::string plugin;  ///< the method
  std::unique_ptr<Adapter> adapter;
  std::optional<double> lr;  ///< of its parameters; absent: the optimizer's
  std::string init_from;     ///< folder of the adapter to go on from, or ""
};
/// In declared order: the first is the outermost.
using AdapterStack = std::vector<NamedAdapter>;

/// The keys of an [adapter] table that are the same for every method; the adapter is not made yet.
PEFT_API NamedAdapter read_adapter_keys(Options& table);
/// The tables [[adapter]], or the one table [adapter], as adapters. Of what is wrong the document is told; an entry's
/// adapter is null then, where there is none. Throws InputError for an init_from that is no adapter.
PEFT_API AdapterStack read_adapters(Document& document, Plugins& plugins);

/// Attaches them in order and fills those that go on from a folder; the others look at the data first. Throws as
/// Adapter::calibrate, Adapter::attach and load_adapter_weights.
PEFT_API void attach_adapters(AdapterStack& stack, Model& model, torch::Dtype dtype, const Calibration& data);

/// Attaches them in order, each as resume_adapter does from its place below `folder`.
PEFT_API void resume_adapters(const std::string& folder, AdapterStack& stack, Model& model, torch::Dtype dtype);

/// All their groups. Where there are several, groups and parameters bear the adapter's name.
PEFT_API std::vector<ParamGroup> groups_of(const AdapterStack& stack, const Model& model);

/// Where PEFT saves it below a run's folder: the folder itself for "default", else a subfolder of its name.
PEFT_API std::string folder_of(const NamedAdapter& adapter, const std::string& folder);

/// save_adapter and copy_adapter of each, in its place.
PEFT_API void save_adapters(const std::string& folder, const AdapterStack& stack, const Model& model);
PEFT_API void copy_adapters(const std::string& from, const std::string& to, const AdapterStack& stack,
                            const Model& model);

}  // namespace peft
