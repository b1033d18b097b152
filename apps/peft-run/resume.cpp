#include "resume.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "peft/architecture/config_fields.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/manifest.h"
#include "peft/plugin/abi.h"
#include "peft/train/plugin_calls.h"

using namespace peft;
using json = nlohmann::ordered_json;

namespace {

/// Keys that change no step of a run. Where data, base and adapters lie: what they hold is compared. epochs and
/// max_steps: the loop compares the rates.
const std::set<std::string> free_keys = {"training.output_dir",
                                         "training.overwrite_output_dir",
                                         "training.log_every",
                                         "training.save_every",
                                         "training.save_total_limit",
                                         "training.load_best_model_at_end",
                                         "training.max_nonfinite_steps",
                                         "training.profile",
                                         "training.epochs",
                                         "training.max_steps",
                                         "model.path",
                                         "data.train",
                                         "data.eval",
                                         "data.cache",
                                         "plugins.paths"};

bool is_free(const std::string& key, const Experiment& experiment) {
  if (key == "training.eval_every") return !needs_evaluations(*experiment.scheduler);
  return free_keys.contains(key) || key.starts_with("memory.") ||
         (key.starts_with("adapter") && key.ends_with(".init_from"));
}

/// The file that Document::resolved() gives, as "table.key" → value; the second of several tables [[adapter]] is
/// "adapter[1]".
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
      if (end == std::string::npos) throw InputError(printable(where, 4096) + ": is not as a run writes it");
      table.resize(end);
      const int number = tables[table]++;
      if (number > 0) table.append("[").append(std::to_string(number)).append("]");
    } else if (const auto equals = line.find(" = "); equals != std::string::npos) {
      keys[table + "." + line.substr(0, equals)] = line.substr(equals + 3);
    }
  }
  return keys;
}

std::string or_nothing(const std::map<std::string, std::string>& keys, const std::string& key) {
  const auto it = keys.find(key);
  return it == keys.end() ? "(not given)" : printable(it->second);
}

/// "run/checkpoint-3" of "run/checkpoint-3/".
std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

std::string text_of(const nlohmann::json& about, const char* key) {
  const auto it = about.find(key);
  return it != about.end() && it->is_string() ? it->get<std::string>() : "";
}

/// `then`: null in a checkpoint that tells of none.
void require_same_config(const nlohmann::json& then, const nlohmann::json& now, const std::string& path) {
  if (!then.is_object() || then == now) return;
  std::string changed;
  for (const auto& [key, value] : now.items())
    if (const auto before = then.value(key, nlohmann::json()); before != value)
      changed += std::string(changed.empty() ? "" : ", ") + key + " was " + printable(before.dump(), 100) + ", is " +
                 printable(value.dump(), 100);
  throw InputError(printable(path, 4096) + ": the base's configuration is not what it was: " + changed);
}

}  // namespace

json about_run(const Experiment& experiment, const Workload& work) {
  StringList plugins;
  for (const PluginStatus& plugin : experiment.plugins->loaded())
    plugins.push_back(plugin.kind + "/" + plugin.name + " " + plugin.version);
  std::sort(plugins.begin(), plugins.end());  // not by where they lie
  json adapters = json::object();
  for (const NamedAdapter& one : experiment.adapters)
    if (!one.init_from.empty()) adapters[one.name] = read_text(one.init_from + "/adapter_config.json");
  const AddedVocabulary* added = work.checkpoint->added();
  const bool resized = added != nullptr && added->other_tokens();  // a fingerprint is of the files' own rows
  return {{"peft_run", PEFT_VERSION " (" PEFT_ABI ")"},
          {"plugins", plugins},
          {"threads", at::get_num_threads()},
          {"processor", at::get_cpu_capability()},
          {"init_from", adapters},
          {"config", fields_of(work.model->config())},
          {"added_rows", resized ? base_hash(*work.model) : ""},
          {"data", data_hash(work.data)},
          {"eval_data", work.eval_data ? data_hash(*work.eval_data) : ""}};
}

std::optional<TrainingCheckpoint> find_checkpoint(const std::string& from, const std::string& output_dir) {
  if (!from.empty()) return read_checkpoint(without_slash(from));
  const std::vector<CheckpointDirectory> all = checkpoints_in(output_dir);
  for (const CheckpointDirectory& folder : all) {
    try {
      return read_checkpoint(folder.path);
    } catch (const InputError& error) {
      std::cerr << "passed over: " << error.what() << "\n";
    }
  }
  if (all.empty()) return std::nullopt;
  throw InputError(printable(output_dir, 4096) + ": no checkpoint is whole, so there is nothing to go on from");
}

Best best_of(const TrainingCheckpoint& checkpoint) {
  const auto progress = checkpoint.states.find("progress");
  if (progress == checkpoint.states.end()) return std::nullopt;  // the loop says what it lacks
  const auto step = progress->second.find("best_step"), loss = progress->second.find("best_loss");
  if (step == progress->second.end() || loss == progress->second.end()) return std::nullopt;
  const auto number = [&](const Tensor& tensor) {
    const double value = tensor.numel() == 1 ? tensor.to(torch::kDouble).item<double>() : NAN;
    if (!(std::abs(value) < 1e15))
      throw InputError(printable(checkpoint.path, 4096) + "/progress.safetensors: tells no best evaluation");
    return value;
  };
  return BestSnapshot{static_cast<int64_t>(number(step->second)), number(loss->second)};
}

void require_best(const Best& best, const std::string& output_dir) {
  if (!best) return;
  try {
    verify_manifest(checkpoint_folder(output_dir, best->step));
  } catch (const InputError& error) {
    throw InputError("[training] load_best_model_at_end: the best checkpoint so far is not there any more: " +
                     std::string(error.what()) + "; turn it off to go on without");
  }
}

void require_same_run(const TrainingCheckpoint& checkpoint, const Experiment& experiment) {
  const std::string path = (std::filesystem::path(checkpoint.path) / "resolved.toml").string();
  const auto before = keys_of(read_text(path), path), now = keys_of(experiment.document.resolved(), "[resolved]");
  std::set<std::string> keys;
  for (const auto* side : {&before, &now})
    for (const auto& [key, value] : *side) keys.insert(key);
  std::string changed;
  for (const std::string& key : keys) {
    if (is_free(key, experiment)) continue;
    const std::string then = or_nothing(before, key), is = or_nothing(now, key);
    if (then != is) changed += "\n  " + printable(key) + ": was " + then + ", is " + is;
  }
  if (!changed.empty())
    throw ConfigError("the experiment is not the one of " + printable(checkpoint.path, 4096) + ":" + changed +
                      "\na run that goes on must be the same; [adapter] init_from begins another one from its adapter");
}

void require_same_ground(const TrainingCheckpoint& checkpoint, const json& about) {
  const nlohmann::json &then = *checkpoint.about, now = about;
  if (then.value("init_from", nlohmann::json()) != now["init_from"])
    throw InputError(printable(checkpoint.path, 4096) +
                     ": the adapter_config.json of [adapter] init_from is not what it was");
  require_same_config(then.value("config", nlohmann::json()), now["config"], checkpoint.path);
  for (const auto& [key, what] : {std::pair("data", "training data"),
                                  {"eval_data", "evaluation data"},
                                  {"added_rows", "base with the rows of its added tokens"}})
    if (text_of(then, key) != text_of(now, key))
      throw InputError(printable(checkpoint.path, 4096) + ": the " + what +
                       " is not what it was, so the run cannot go on where it stopped");
  for (const char* key : {"threads", "processor", "plugins", "peft_run"})
    if (then.value(key, nlohmann::json()) != now[key])
      std::cerr << "warning: " << key << " were " << printable(then.value(key, nlohmann::json()).dump(), 1000)
                << ", are " << now[key].dump()
                << ": the last bits of the result may differ from those of an unbroken run\n";
}
