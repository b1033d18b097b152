#include "peft/adapters/stack.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "peft/adapters/adapter_state.h"
#include "peft/adapters/hf_files.h"
#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"
#include "peft/models/model.h"

namespace peft {

namespace {

/// With `init_from` the options are the saved adapter's; the table must not have any.
void make_adapter(Document& document, Options& table, Plugins& plugins, bool ignore_unknown, NamedAdapter& out) {
  if (out.init_from.empty()) {
    if (out.plugin.empty()) return;
    if (const std::string error = plugins.missing(Kind<Adapter>::name, out.plugin); !error.empty())
      return document.reject_plugin(table, error);
    out.adapter = plugins.make<Adapter>(out.plugin, table);
    return;
  }
  OpenedAdapter saved = open_adapter(out.init_from, plugins, ignore_unknown);
  if (!out.plugin.empty() && out.plugin != saved.plugin)
    table.error("name", "must be '" + printable(saved.plugin) + "', the method of the adapter in init_from");
  out.plugin = saved.plugin;
  out.adapter = std::move(saved.adapter);
  out.notes = std::move(saved.notes);
}

/// A name is a folder next to a run's checkpoints, and part of keys that HF PEFT splits at dots.
bool is_adapter_name(const std::string& name) {
  return !name.empty() && !name.starts_with("checkpoint-") &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
             std::string::npos;
}

/// "default", then the plugin's name, numbered if it is taken.
std::string free_name(const NamedAdapter& adapter, const StringList& taken) {
  const auto is_free = [&](const std::string& name) {
    return std::find(taken.begin(), taken.end(), name) == taken.end();
  };
  if (is_free("default")) return "default";
  std::string name = adapter.plugin;
  for (int n = 2; !is_free(name); ++n) name = adapter.plugin + "_" + std::to_string(n);
  return name;
}

}  // namespace

NamedAdapter read_adapter_keys(Options& table) {
  NamedAdapter out;
  std::optional<std::string> name;
  table.get_path("init_from", out.init_from, "folder of an adapter, saved here or by HF PEFT, to train further");
  table.get("name", out.plugin, "the plugin; 'peft-run list' shows all")
      .require(!out.plugin.empty() || !out.init_from.empty(), "must be given: it selects the plugin");
  table.get("adapter_name", name, "HF PEFT's name of the adapter; any but \"default\" is saved in a subfolder")
      .require(!name || is_adapter_name(*name),
               "must have only letters, digits, '_' and '-', and must not start with 'checkpoint-'");
  table.get("lr", out.lr, "learning rate of this adapter; absent: the optimizer's")
      .require(!out.lr || (std::isfinite(*out.lr) && *out.lr >= 0), "must be 0 or more");
  out.name = name.value_or("");
  return out;
}

AdapterStack read_adapters(Document& document, Plugins& plugins, bool ignore_unknown) {
  AdapterStack stack;
  StringList taken;
  for (Options& table : document.tables("adapter")) {
    NamedAdapter adapter = read_adapter_keys(table);
    if (!adapter.name.empty() && std::find(taken.begin(), taken.end(), adapter.name) != taken.end())
      table.error("adapter_name", "is the name of another adapter");
    taken.push_back(adapter.name);
    make_adapter(document, table, plugins, ignore_unknown, adapter);
    stack.push_back(std::move(adapter));
  }
  for (NamedAdapter& adapter : stack) {
    if (!adapter.name.empty()) continue;
    adapter.name = free_name(adapter, taken);
    taken.push_back(adapter.name);
  }
  return stack;
}

void attach_adapters(AdapterStack& stack, Model& model, torch::Dtype dtype, const Calibration& data) {
  for (const NamedAdapter& named : stack) {
    Adapter& adapter = *named.adapter;
    Calibrated* calibrated = adapter.calibrated();
    if (calibrated != nullptr && named.init_from.empty()) calibrated->calibrate(model, data);
    adapter.attach(model, dtype);
    if (!named.init_from.empty()) load_adapter_weights(named.init_from, adapter, model, false);
  }
}

void resume_adapters(const std::string& folder, AdapterStack& stack, Model& model, torch::Dtype dtype) {
  for (const NamedAdapter& named : stack) resume_adapter(folder_of(named, folder), *named.adapter, model, dtype);
}

std::vector<ParamGroup> groups_of(const AdapterStack& stack, const Model& model) {
  std::vector<ParamGroup> all;
  for (const NamedAdapter& named : stack)
    for (ParamGroup& group : named.adapter->groups(model)) {
      if (named.lr && !group.initial_lr) group.initial_lr = *named.lr * group.lr_scale;
      if (stack.size() > 1) {
        const std::string suffix = group.name.starts_with("adapter") ? group.name.substr(7) : " " + group.name;
        group.name = named.name + suffix;
        for (auto& [name, parameter] : group.parameters) name = named.name + "." + name;
      }
      all.push_back(std::move(group));
    }
  return all;
}

std::string folder_of(const NamedAdapter& adapter, const std::string& folder) {
  return adapter.name == "default" ? folder : (std::filesystem::path(folder) / adapter.name).string();
}

namespace {

std::string make_folder_of(const NamedAdapter& adapter, const std::string& folder) {
  std::string path = folder_of(adapter, folder);
  make_folder(path);
  return path;
}

}  // namespace

void save_adapters(const std::string& folder, const AdapterStack& stack, const Model& model) {
  for (const NamedAdapter& named : stack) save_adapter(make_folder_of(named, folder), *named.adapter, model);
}

void copy_adapters(const std::string& from, const std::string& to, const AdapterStack& stack, const Model& model) {
  for (const NamedAdapter& named : stack) copy_adapter(folder_of(named, from), make_folder_of(named, to), model);
}

}  // namespace peft
