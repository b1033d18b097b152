#include "train/gradient_check.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <atomic>
#include <stdexcept>
#include <unordered_set>

#include "base/digest.h"
#include "peft/base/error.h"
#include "peft/files/mapped_path.h"
#include "peft/train/train.h"

namespace peft {

void require_all_trained(const Model& model, const std::vector<Tensor>& parameters) {
  const NamedTensors trainable = model.trainable();
  if (trainable.empty()) throw ConfigError("no trainable parameters: the adapter attached none");
  std::unordered_set<const void*> held;
  for (const Tensor& parameter : parameters)
    if (!held.insert(parameter.unsafeGetTensorImpl()).second)
      throw std::logic_error("the adapter's param groups have a parameter twice");
  for (const auto& [name, tensor] : trainable)
    if (held.erase(tensor.unsafeGetTensorImpl()) == 0)
      throw std::logic_error("the optimizer does not train '" + name + "'");
  if (!held.empty()) throw std::logic_error("the optimizer has parameters that are not the adapter's");
}

std::string base_hash(const Model& model) {
  const NamedTensors frozen = model.frozen();
  std::vector<std::string> digests(frozen.size());
  const auto count = static_cast<int64_t>(frozen.size());
  std::atomic<int64_t> next = 0;
  // Each thread takes the next tensor, because their sizes differ widely.
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++) {
      const Tensor host = frozen[static_cast<std::size_t>(i)].second.cpu().contiguous();
      Digest digest;
      digest.add(host.data_ptr(), host.nbytes());
      digests[static_cast<std::size_t>(i)] = digest.hex();
    }
  });
  Digest all;
  for (std::size_t i = 0; i < frozen.size(); ++i) {
    all.add(frozen[i].first);
    all.add(digests[i]);
  }
  return all.hex();
}

std::string data_hash(const Dataset& data) {
  Digest digest;
  for (const Example& example : data.examples)
    for (const auto* row : {&example.ids, &example.labels})
      digest.add(std::string_view(reinterpret_cast<const char*>(row->data()), row->size() * sizeof(int64_t)));
  return digest.hex();
}

void require_unchanged(const Model& model, const std::string& hash) {
  if (base_hash(model) == hash) return;
  if (const std::string path = modified_mapped_path(); !path.empty())
    throw InputError(
        printable_path(path) +
        ": was modified during the run, so the base is not the one that the run has loaded; no adapter was "
        "written");
  throw std::logic_error("the frozen base changed during training: it is not bit-equal to what was loaded");
}

GradientCheck::GradientCheck(const Model& model) : model_(model) {
  for (const auto& [name, tensor] : model.trainable()) {
    auto reached = std::make_shared<bool>(false);
    const unsigned hook = tensor.register_hook([reached](const Tensor&) { *reached = true; });
    watched_.push_back({name, tensor, hook, reached});
  }
}

GradientCheck::~GradientCheck() { remove_hooks(); }

void GradientCheck::remove_hooks() {
  for (const Watched& item : watched_) item.tensor.remove_hook(item.hook);
  watched_.clear();
}

void GradientCheck::check() {
  std::string breaches;
  for (const Watched& item : watched_) {
    const Tensor& gradient = item.tensor.grad();
    if (!*item.reached || !gradient.defined())
      breaches += "\n  adapter tensor '" + item.name + "' got no gradient";
    else if (!at::isfinite(gradient).all().item<bool>())
      breaches += "\n  the gradient of adapter tensor '" + item.name + "' is not finite";
  }
  for (const auto& [name, tensor] : model_.frozen())
    if (tensor.requires_grad() || tensor.grad().defined())
      breaches += "\n  base tensor '" + name + "' got a gradient or requires one";
  if (!breaches.empty()) throw std::logic_error("the gradient check failed:" + breaches);
  remove_hooks();
  open_ = false;
}

}  // namespace peft
