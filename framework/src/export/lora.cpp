#include <torch/types.h>
#include <torch/utils.h>

#include <nlohmann/json.hpp>
#include <set>

#include "export/combine.h"
#include "nn/adapted_linear.h"
#include "peft/adapters/hf_files.h"
#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"
#include "runtime/finite.h"

namespace peft {

namespace {

std::string last_name(const Site& site) { return site.path().substr(site.path().rfind('.') + 1); }

/// Names that select exactly the updated sites: their last components if these select no others, else full paths.
StringList target_modules(const Model& model, const std::vector<SiteUpdate>& updates) {
  std::set<std::string> names, paths;
  for (const SiteUpdate& update : updates) {
    names.insert(last_name(*update.site));
    paths.insert(update.site->path());
  }
  for (const Site* site : model.sites())
    if (names.contains(last_name(*site)) && !paths.contains(site->path())) return {paths.begin(), paths.end()};
  return {names.begin(), names.end()};
}

std::unique_ptr<Adapter> make_lora(const Model& model, const std::vector<SiteUpdate>& updates, Plugins& plugins) {
  const int64_t r = largest_rank(updates);
  const nlohmann::json config = {
      {"peft_type", "LORA"}, {"r", r}, {"lora_alpha", r}, {"target_modules", target_modules(model, updates)}};
  return open_adapter(config, "the exported adapter", plugins).adapter;
}

}  // namespace

ReadingNotes export_lora(const CombineOptions& options, const std::string& output, Plugins& plugins) {
  const torch::NoGradGuard no_grad;
  AtomicDirectory draft(require_absent(output));
  const CombinedAdapters combined = combine(options, plugins);
  Model& model = *combined.base.model;
  const auto lora = make_lora(model, combined.updates, plugins);
  lora->attach(model, torch::kFloat);
  for (const auto& [site, update] : combined.updates) {
    const auto layers = lora->layers_on(*site);
    const auto exported = layers.size() == 1 ? low_rank_of(*site, *layers.front()) : std::nullopt;
    TORCH_CHECK(exported && exported->A.size(0) >= update.A.size(0), "adapter/lora did not adapt ", site->path());
    exported->A.zero_().slice(0, 0, update.A.size(0)).copy_(update.A * (update.scale / exported->scale));
    exported->B.zero_().slice(1, 0, update.B.size(1)).copy_(update.B);
    if (!all_finite(exported->A) || !all_finite(exported->B))
      throw InputError("'" + site->path() + "': the combined update is not finite in fp32");
  }
  save_adapter(draft.path(), *lora, model);
  draft.commit();
  return combined.base.notes;
}

}  // namespace peft
