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

/// One adapter of an experiment.
struct NamedAdapter {
  std::string name;    ///< HF's adapter_name: "default", or the subfolder it is saved in
  std::string plugin;  ///< name of the plugin
  std::unique_ptr<Adapter> adapter;
  std::optional<double> lr;  ///< of its parameters; absent: the optimizer's
  std::string init_from;     ///< folder of the adapter to train further, or ""
  StringList notes = {};     ///< of reading that folder (OpenedAdapter::notes)
};
/// In declared order: the first is the outermost.
using AdapterStack = std::vector<NamedAdapter>;

/// Reads the keys of an [adapter] table that every method has. The adapter is not made yet.
PEFT_API NamedAdapter read_adapter_keys(Options& table);
/// Makes the adapters of the tables [[adapter]], or of the single table [adapter]. Errors are added to the document;
/// the adapter of an entry that could not be made is null. `ignore_unknown`: as open_adapter(), of init_from. Throws
/// InputError if an init_from is not an adapter's folder.
PEFT_API AdapterStack read_adapters(Document& document, Plugins& plugins, bool ignore_unknown = false);

/// Attaches the adapters in order. One with init_from loads its weights; the others calibrate before they attach.
/// Throws as Calibrated::calibrate, Adapter::attach and load_adapter_weights.
PEFT_API void attach_adapters(AdapterStack& stack, Model& model, torch::Dtype dtype, const Calibration& data);

/// Attaches the adapters in order, each with resume_adapter() from its folder_of().
PEFT_API void resume_adapters(const std::string& folder, AdapterStack& stack, Model& model, torch::Dtype dtype);

/// The groups of all adapters. If there are several, the names of groups and parameters start with the adapter's.
PEFT_API std::vector<ParamGroup> groups_of(const AdapterStack& stack, const Model& model);

/// The adapter's folder in a run's folder, as in HF PEFT: the folder itself for "default", else a subfolder.
PEFT_API std::string folder_of(const NamedAdapter& adapter, const std::string& folder);

/// save_adapter() and copy_adapter() of each, in its folder_of().
PEFT_API void save_adapters(const std::string& folder, const AdapterStack& stack, const Model& model);
PEFT_API void copy_adapters(const std::string& from, const std::string& to, const AdapterStack& stack,
                            const Model& model);

}  // namespace peft
