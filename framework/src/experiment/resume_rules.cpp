#include "experiment/resume_rules.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>

#include "ops/fp32_products.h"
#include "peft/architecture/config_fields.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/manifest.h"
#include "peft/plugin/abi.h"
#include "peft/train/hashes.h"

namespace peft {

using json = nlohmann::ordered_json;

namespace {

/// Keys that a resumed run may change. Of paths, the contents are compared; of epochs and max_steps, the loop compares
/// the learning rates.
const std::set<std::string> kChangeableKeys = {"training.output_dir",
                                               "training.overwrite_output_dir",
                                               "training.log_every",
                                               "training.save_every",
                                               "training.save_every_minutes",
                                               "training.save_total_limit",
                                               "training.load_best_model_at_end",
                                               "training.max_nonfinite_steps",
                                               "training.profile",
                                               "training.epochs",
                                               "training.max_steps",
                                               "model.path",
                                               "model.base_name",
                                               "model.ignore_unknown",
                                               "data.train",
                                               "data.eval",
                                               "data.cache",
                                               "plugins.paths"};

bool is_changeable(const std::string& key, const Experiment& experiment) {
  if (key == "training.eval_every") return !experiment.scheduler->needs_evaluations();
  return kChangeableKeys.contains(key) || key.starts_with("memory.") ||
         (key.starts_with("adapter") && key.ends_with(".init_from"));
}

/// The text of Document::resolved() as "table.key" → value; the second of several tables [[adapter]] is "adapter[1]".
std::map<std::string, std::string> keys_of(const std::string& resolved, const std::string& where) {
  std::map<std::string, std::string> keys;
  std::map<std::string, int> tables;
  std::istringstream lines(resolved);
  lines.exceptions(std::ios::badbit);
  std::string table;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('[')) {
      table = line.substr(std::min(line.find_first_not_of('['), line.size()));
      const auto end = table.find(']');
      if (end == std::string::npos) throw InputError(printable_path(where) + ": not a file that a run has written");
      table.resize(end);
      const int number = tables[table]++;
      if (number > 0) table.append("[").append(std::to_string(number)).append("]");
    } else if (const auto equals = line.find(" = "); equals != std::string::npos) {
      keys[table + "." + line.substr(0, equals)] = line.substr(equals + 3);
    }
  }
  return keys;
}

std::string value_or_note(const std::map<std::string, std::string>& keys, const std::string& key) {
  const auto it = keys.find(key);
  return it == keys.end() ? "(not set)" : printable(it->second);
}

/// "run/checkpoint-3/" becomes "run/checkpoint-3".
std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

std::string text_of(const nlohmann::json& about, const char* key) {
  const auto it = about.find(key);
  return it != about.end() && it->is_string() ? it->get<std::string>() : "";
}

/// Runs of versions that recorded none used libtorch's BLAS.
std::string fp32_products_of(const nlohmann::json& about) {
  return about.contains("fp32_products") ? text_of(about, "fp32_products") : name(Fp32Products::blas);
}

/// `then`: null in a checkpoint without one.
void check_same_config(const nlohmann::json& then, const nlohmann::json& now, const std::string& path) {
  if (!then.is_object() || then == now) return;
  std::string changed;
  for (const auto& [key, value] : now.items())
    if (const auto before = then.value(key, nlohmann::json()); before != value)
      changed += std::string(changed.empty() ? "" : ", ") + key + " was " + printable(before.dump(), 100) + ", is " +
                 printable(value.dump(), 100);
  throw InputError(printable_path(path) + ": the base's configuration has changed: " + changed);
}

}  // namespace

json about_run(const Experiment& experiment, const PreparedRun& run) {
  StringList plugins;
  for (const PluginStatus& plugin : experiment.plugins->loaded())
    plugins.push_back(plugin.kind + "/" + plugin.name + " " + plugin.version);
  std::sort(plugins.begin(), plugins.end());  // not by folder
  json adapters = json::object();
  for (const NamedAdapter& adapter : experiment.adapters)
    if (!adapter.init_from.empty()) adapters[adapter.name] = read_text(adapter.init_from + "/adapter_config.json");
  const AddedVocabulary* added = run.base->added();
  const bool resized = added != nullptr && added->other_tokens();  // a fingerprint covers the rows of the files only
  return {{"peft_run", PEFT_VERSION " (" PEFT_ABI ")"},
          {"plugins", plugins},
          {"threads", at::get_num_threads()},
          {"processor", at::get_cpu_capability()},
          {"fp32_products", name(fp32_products())},
          {"init_from", adapters},
          {"config", fields_of(run.model->config())},
          {"added_rows", resized ? base_hash(*run.model) : ""},
          {"data", data_hash(run.data)},
          {"eval_data", run.eval_data ? data_hash(*run.eval_data) : ""}};
}

std::optional<TrainingCheckpoint> find_checkpoint(const std::string& from, const std::string& output_dir,
                                                  const Messages& messages) {
  if (!from.empty()) return read_checkpoint(without_slash(from));
  const std::vector<CheckpointDirectory> all = checkpoints_in(output_dir);
  for (const CheckpointDirectory& folder : all) {
    try {
      return read_checkpoint(folder.path);
    } catch (const InputError& error) {
      messages.warning("skipped checkpoint: " + std::string(error.what()));
    }
  }
  if (all.empty()) return std::nullopt;
  throw InputError(printable_path(output_dir) + ": no intact checkpoint to resume from");
}

Best best_of(const TrainingCheckpoint& checkpoint) {
  const auto progress = checkpoint.states.find("progress");
  if (progress == checkpoint.states.end()) return std::nullopt;  // the loop reports that it is missing
  const auto step = progress->second.find("best_step"), loss = progress->second.find("best_loss");
  if (step == progress->second.end() || loss == progress->second.end()) return std::nullopt;
  const auto number = [&](const Tensor& tensor) {
    const double value = tensor.numel() == 1 ? tensor.to(torch::kDouble).item<double>() : NAN;
    if (!(std::abs(value) < 1e15))
      throw InputError(printable_path(checkpoint.path) +
                       "/progress.safetensors: best_step and best_loss are not numbers");
    return value;
  };
  return BestSnapshot{static_cast<int64_t>(number(step->second)), number(loss->second)};
}

void check_best_checkpoint(const Best& best, const std::string& output_dir) {
  if (!best) return;
  try {
    verify_manifest(checkpoint_folder(output_dir, best->step));
  } catch (const InputError& error) {
    throw InputError("[training] load_best_model_at_end: the best checkpoint so far is not intact: " +
                     std::string(error.what()) + "; set load_best_model_at_end = false to resume without it");
  }
}

void check_same_settings(const TrainingCheckpoint& checkpoint, const Experiment& experiment) {
  const std::string path = (std::filesystem::path(checkpoint.path) / "resolved.toml").string();
  auto before = keys_of(read_text(path), path);
  const auto now = keys_of(experiment.document.resolved(), "[resolved]");
  // Runs of versions without objectives minimized what is now the default one.
  before.try_emplace("objective.name", std::string("\"") + Kind<Objective>::default_plugin + "\"");
  // Earlier versions did not have this option.
  for (const auto& [key, value] : now)
    if (key.ends_with(".ensure_weight_tying")) before.try_emplace(key, "false");
  std::set<std::string> keys;
  for (const auto* side : {&std::as_const(before), &now})
    for (const auto& [key, value] : *side) keys.insert(key);
  std::string changed;
  for (const std::string& key : keys) {
    if (is_changeable(key, experiment)) continue;
    const std::string then = value_or_note(before, key), is = value_or_note(now, key);
    if (then != is) changed += "\n  " + printable(key) + ": was " + then + ", is " + is;
  }
  if (!changed.empty())
    throw ConfigError("the experiment differs from that of " + printable_path(checkpoint.path) + ":" + changed +
                      "\na resumed run must use the same settings; to train its adapter further with others, start a "
                      "new run with [adapter] init_from");
}

void resume_fp32_products(const std::optional<TrainingCheckpoint>& from) {
  choose_fp32_products(from ? fp32_products_of(*from->about) : "");
}

void check_same_environment(const TrainingCheckpoint& checkpoint, const json& about, const Messages& messages) {
  nlohmann::json then = *checkpoint.about;
  const nlohmann::json now = about;
  then["fp32_products"] = fp32_products_of(then);
  if (then.value("init_from", nlohmann::json()) != now["init_from"])
    throw InputError(printable_path(checkpoint.path) + ": the adapter_config.json of [adapter] init_from has changed");
  check_same_config(then.value("config", nlohmann::json()), now["config"], checkpoint.path);
  for (const auto& [key, what] : {std::pair("data", "training data"),
                                  {"eval_data", "evaluation data"},
                                  {"added_rows", "base with the rows of the added tokens"}})
    if (text_of(then, key) != text_of(now, key))
      throw InputError(printable_path(checkpoint.path) + ": the " + what +
                       " has changed, so the run cannot be resumed");
  for (const char* key : {"threads", "processor", "fp32_products", "plugins", "peft_run"})
    if (then.value(key, nlohmann::json()) != now[key])
      messages.warning(std::string(key) + " changed from " + printable(then.value(key, nlohmann::json()).dump(), 1000) +
                       " to " + now[key].dump() +
                       ": the last bits of the result may differ from those of an uninterrupted run");
}

}  // namespace peft
