#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "peft/adapters/stack.h"
#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/options/document.h"
#include "peft/planning/memory_estimate.h"
#include "peft/plugin/plugins.h"
#include "peft/train/clipping.h"
#include "peft/train/objective.h"
#include "peft/train/optimizer.h"
#include "peft/train/options.h"
#include "peft/train/precision.h"
#include "peft/train/scheduler.h"

namespace peft {

/// The [model] table.
struct ModelOptions {
  std::string path;
  StringList added_tokens;      ///< as HF's tokenizer.add_tokens takes them
  std::string chat_template;    ///< as find_chat_template() takes it; "": the model's own
  std::string base_name;        ///< OpenOptions::base_name
  bool ignore_unknown = false;  ///< of config.json and of the adapters to train further
};

/// The kinds of which a run has one plugin, each with that plugin's name.
using PluginNames = std::vector<std::pair<std::string, std::string>>;

/// An experiment file, read and checked, with its plugins made. Nothing is loaded yet.
struct PEFT_API Experiment {
  /// `overlays`: files whose tables replace those of the experiment, in order. `sets`: assignments `table.key=value`
  /// that then override values, in order. Throws ConfigError with every error of the files; PluginError for a plugin
  /// that is missing or cannot be used; InputError if an init_from is not an adapter's folder.
  static Experiment from_file(const std::string& path, const StringList& sets = {}, const StringList& overlays = {});
  /// The same of TOML text. Relative paths in it start at the working directory; `name` stands for the file in
  /// messages.
  static Experiment from_text(const std::string& toml, const StringList& sets = {}, const std::string& name = "<text>");
  ~Experiment();
  Experiment(Experiment&&) noexcept;

  Document document;
  ModelOptions model;
  DataOptions data;
  TrainingOptions training;
  MemoryOptions memory;
  StringList plugin_paths;   ///< of [plugins]
  PluginNames plugin_names;  ///< of all kinds but the adapters
  std::unique_ptr<Plugins> plugins;
  AdapterStack adapters;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<GradientClipping> clipping;
  std::unique_ptr<Precision> precision;
  std::unique_ptr<Objective> objective;

 private:
  explicit Experiment(Document file);
};

/// A table of an experiment that belongs to the core, not to a plugin.
struct CoreTable {
  std::string name;                 ///< as in TOML
  std::string purpose;              ///< one sentence
  std::vector<OptionInfo> options;  ///< from the code that reads the table, given an empty one
};
/// [model], [data], [adapter], [training], [memory], [plugins].
PEFT_API std::vector<CoreTable> core_tables();

}  // namespace peft
