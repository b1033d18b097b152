#include "peft/adapters/stack.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "peft/adapters/files.h"
#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"
#include "peft/models/decoder.h"
#include "plugin/plugin_call.h"

namespace peft {

namespace {

using detail::call_plugin;

/// With `init_from` the options are the saved adapter's: the table may hold none of its own.
void make_method(Options& table, Plugins& plugins, NamedAdapter& out) {
  if (out.init_from.empty()) {
    if (!out.plugin.empty()) out.adapter = plugins.make<Adapter>(out.plugin, table);
    return;
  }
  OpenedAdapter saved = open_adapter(out.init_from, plugins);
  if (!out.plugin.empty() && out.plugin != saved.plugin)
    table.error("name", "is not what init_from holds, which is '" + printable(saved.plugin) + "'");
  out.plugin = saved.plugin;
  out.adapter = std::move(saved.adapter);
}

/// A name is a folder beside a run's checkpoints, and part of keys that PEFT takes apart at dots.
bool is_adapter_name(const std::string& name) {
  return !name.empty() && !name.starts_with("checkpoint-") &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
             std::string::npos;
}

/// "default", then the method's name, counted where it is taken.
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
  table.get_path("init_from", out.init_from, "folder of an adapter, made here or by HF PEFT, to go on from");
  table.get("name", out.plugin, "the plugin; 'peft-run list' shows those there are")
      .require(!out.plugin.empty() || !out.init_from.empty(), "must be given: the table chooses a plugin by it");
  table.get("adapter_name", name, "HF's name of the adapter; others than \"default\" are saved in a subfolder")
      .require(!name || is_adapter_name(*name),
               "has only letters, digits, '_' and '-', and does not begin with 'checkpoint-'");
  table.get("lr", out.lr, "learning rate of this adapter; absent: the optimizer's")
      .require(!out.lr || (std::isfinite(*out.lr) && *out.lr >= 0), "must be 0 or more");
  out.name = name.value_or("");
  return out;
}

AdapterStack read_adapters(Document& document, Plugins& plugins) {
  AdapterStack stack;
  StringList taken;
  for (Options& table : document.tables("adapter")) {
    NamedAdapter one = read_adapter_keys(table);
    if (!one.name.empty() && std::find(taken.begin(), taken.end(), one.name) != taken.end())
      table.error("adapter_name", "is the name of another adapter");
    taken.push_back(one.name);
    make_method(table, plugins, one);
    stack.push_back(std::move(one));
  }
  for (NamedAdapter& one : stack) {
    if (!one.name.empty()) continue;
    one.name = free_name(one, taken);
    taken.push_back(one.name);
  }
  return stack;
}

void attach_adapters(AdapterStack& stack, Model& model, torch::Dtype dtype, const Calibration& data) {
  for (NamedAdapter& one : stack) {
    Adapter& adapter = *one.adapter;
    if (one.init_from.empty()) call_plugin(adapter, "calibrate", [&] { adapter.calibrate(model, data); });
    call_plugin(adapter, "attach", [&] { adapter.attach(model, dtype); });
    if (!one.init_from.empty()) load_adapter_weights(one.init_from, adapter, model, false);
  }
}

void resume_adapters(const std::string& folder, AdapterStack& stack, Model& model, torch::Dtype dtype) {
  for (NamedAdapter& one : stack) resume_adapter(folder_of(one, folder), *one.adapter, model, dtype);
}

std::vector<ParamGroup> groups_of(const AdapterStack& stack, const Model& model) {
  std::vector<ParamGroup> all;
  for (const NamedAdapter& one : stack)
    for (ParamGroup& group : call_plugin(*one.adapter, "groups", [&] { return one.adapter->groups(model); })) {
      if (one.lr && !group.initial_lr) group.initial_lr = *one.lr * group.lr_scale;
      if (stack.size() > 1) {
        const std::string part = group.name.starts_with("adapter") ? group.name.substr(7) : " " + group.name;
        group.name = one.name + part;
        for (auto& [name, parameter] : group.parameters) name = one.name + "." + name;
      }
      all.push_back(std::move(group));
    }
  return all;
}

std::string folder_of(const NamedAdapter& adapter, const std::string& folder) {
  return adapter.name == "default" ? folder : (std::filesystem::path(folder) / adapter.name).string();
}

namespace {

std::string made_folder_of(const NamedAdapter& adapter, const std::string& folder) {
  std::string place = folder_of(adapter, folder);
  make_folder(place);
  return place;
}

}  // namespace

void save_adapters(const std::string& folder, const AdapterStack& stack, const Model& model) {
  for (const NamedAdapter& one : stack) save_adapter(made_folder_of(one, folder), *one.adapter, model);
}

void copy_adapters(const std::string& from, const std::string& to, const AdapterStack& stack, const Model& model) {
  for (const NamedAdapter& one : stack) copy_adapter(folder_of(one, from), made_folder_of(one, to), model);
}

}  // namespace peft
