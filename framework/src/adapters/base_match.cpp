#include "adapters/base_match.h"

#include <torch/types.h>

#include "adapters/saved_embedding.h"
#include "peft/adapters/hf_format.h"
#include "peft/base/error.h"

namespace peft {

namespace {

bool equal_after_cast(const Tensor& a, const Tensor& b) {
  return torch::equal(a.to(b.dtype()), b) || torch::equal(a, b.to(a.dtype()));
}

}  // namespace

BaseMatch check_base(const SafetensorsFile& file, const Model& model, bool any_base) {
  const auto saved = file.metadata().find(kFingerprint);
  const bool known = saved != file.metadata().end() && !model.origin().fingerprint.empty();
  if (known && !any_base && saved->second != model.origin().fingerprint)
    throw InputError(printable_path(file.path()) + " was trained on another base: its fingerprint is " +
                     printable(saved->second) + ", that of " + printable_path(model.origin().path) + " is " +
                     model.origin().fingerprint +
                     "; use the base that it was trained on, or --any-base if this is a converted copy of it");
  return known ? BaseMatch::same : BaseMatch::unknown;
}

/// HF PEFT saves both if one of them is adapted or the vocabulary was resized; a weight that trains is saved twice.
StateDict repeated_base_tensors(const Adapter& adapter, const Model& model, const StateDict& adapter_tensors,
                                const StateDict& file) {
  StateDict repeated = adapter.hf_format().base_tensors(model);
  for (const Site* site : std::initializer_list<const Site*>{&model.embedding(), model.output_embedding()}) {
    if (site == nullptr) continue;
    for (const std::string& key : keys_of_saved_weight(site->path())) {
      if (!adapter_tensors.contains(key)) repeated.emplace(key, site->dense());
      if (const auto trained = file.find(key); trained != file.end() && adapter_tensors.contains(key))
        repeated.emplace(key_of_trained_copy(key), trained->second);
    }
  }
  return repeated;
}

std::string describe_base_mismatch(const StateDict& base, const StateDict& file) {
  std::string problems;
  for (const auto& [key, tensor] : base) {
    const auto found = file.find(key);
    if (found == file.end()) continue;
    if (found->second.sizes() != tensor.sizes() || !equal_after_cast(found->second, tensor.cpu()))
      problems += "\n  differs from the base's weight: " + printable(key);
  }
  return problems;
}

StateDict without_base_tensors(StateDict file, const StateDict& base) {
  std::erase_if(file, [&](const auto& item) { return base.contains(item.first); });
  return file;
}

}  // namespace peft
