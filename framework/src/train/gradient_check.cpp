#include "train/gradient_check.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <stdexcept>
#include <unordered_set>

#include "base/digest.h"
#include "peft/base/error.h"
#include "peft/files/mapped_path.h"
#include "peft/train/train.h"
#include "plugin/plugin_call.h"
#include "train/digests.h"

namespace peft {

namespace {

/// The module of an adapter that holds `tensor`; null for a trained copy of a site's own parameter.
const AdapterModule* owner_of(const Model& model, const Tensor& tensor) {
  for (const Site* site : model.sites())
    for (const auto& module : site->adapter_modules()) {
      for (const Tensor& parameter : module->parameters())
        if (parameter.is_same(tensor)) return module.get();
      for (const Tensor& buffer : module->buffers())
        if (buffer.is_same(tensor)) return module.get();
    }
  return nullptr;
}

/// Throws a mistake in what concerns an adapter's `tensor`.
[[noreturn]] void blame_owner(const Model& model, const Tensor& tensor, const char* what, const std::string& text) {
  if (const AdapterModule* owner = owner_of(model, tensor); owner != nullptr) detail::blame(*owner, what, text);
  throw std::logic_error(std::string(what) + " failed: " + text);
}

}  // namespace

void require_all_trained(const Model& model, const std::vector<Tensor>& parameters,
                         const std::vector<Adapter*>& adapters) {
  const NamedTensors trainable = model.trainable();
  if (trainable.empty())
    throw ConfigError("no trainable parameters: the adapter's layers have registered none (register_parameter)");
  std::unordered_set<const void*> held;
  for (const Tensor& parameter : parameters)
    if (!held.insert(parameter.unsafeGetTensorImpl()).second)
      blame_owner(model, parameter, "groups", "the adapter's param groups have a parameter twice");
  for (const auto& [name, tensor] : trainable)
    if (held.erase(tensor.unsafeGetTensorImpl()) == 0)
      blame_owner(model, tensor, "groups",
                  "the optimizer does not train '" + printable(name) +
                      "', which requires a gradient: a param group must have it, and a buffer must require none");
  if (held.empty()) return;
  for (const Adapter* adapter : adapters)
    for (const ParamGroup& group : adapter->groups(model))
      for (const auto& [name, tensor] : group.parameters)
        if (held.contains(tensor.unsafeGetTensorImpl()))
          detail::blame(*adapter, "groups", "'" + printable(name) + "' of a param group is not registered in a layer");
  throw std::logic_error("the optimizer has parameters that are not the adapter's");
}

std::string base_hash(const Model& model) {
  const NamedTensors frozen = model.frozen();
  const StringList digests = digests_of(frozen);
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
  const NamedTensors trainable = model.trainable();
  for (const auto& [name, tensor] : trainable) {
    auto reached = std::make_shared<bool>(false);
    const unsigned hook = tensor.register_hook([reached](const Tensor&) { *reached = true; });
    watched_.push_back({name, tensor, tensor.scalar_type(), tensor.sizes().vec(), hook, reached});
  }
  watch_.emplace(model.sites(), trainable);
}

GradientCheck::~GradientCheck() { remove_hooks(); }

void GradientCheck::remove_hooks() {
  for (const Watched& item : watched_) item.tensor.remove_hook(item.hook);
  watched_.clear();
  watch_.reset();
}

void GradientCheck::check_frozen() const {
  std::string breaches;
  for (const auto& [name, tensor] : model_.frozen())
    if (tensor.requires_grad() || tensor.grad().defined())
      breaches += "\n  base tensor '" + name + "' got a gradient or requires one";
  if (!breaches.empty()) throw std::logic_error("the gradient check failed:" + breaches);
}

void GradientCheck::check_loss(const Objective& objective, const Pass& pass, const Tensor& loss) const {
  check_frozen();
  if (!loss.requires_grad()) {
    if (pass.cross_entropy_sum().requires_grad())
      detail::blame(objective, "loss", "the loss has no gradient, although the model's outputs have one");
    blame_owner(model_, watched_.front().tensor, "the gradient check",
                "the loss has no gradient: nothing that the layers return depends on their parameters");
  }
  // The layers were checked when they ran; what they did not bring in is the objective's.
  const std::string unknown = watch_->unknown(leaves_between({}, {gradient_edge_of(loss)}));
  if (!unknown.empty())
    detail::blame(objective, "loss",
                  "the loss depends on a tensor that requires a gradient but is not a parameter of an adapter (" +
                      unknown + "): it would be neither trained nor saved");
}

void GradientCheck::check_auxiliary_loss(const TrainingHooks& hooks, const Tensor& loss) const {
  const std::string unknown = watch_->unknown(leaves_between({}, {gradient_edge_of(loss)}));
  if (!unknown.empty())
    detail::blame(hooks, "auxiliary_loss",
                  "it depends on a tensor that requires a gradient but is not a registered parameter (" + unknown +
                      "): it would be neither trained nor saved");
}

void GradientCheck::check_gradients() const {
  std::string breaches;
  const Tensor* first = nullptr;
  for (const Watched& item : watched_) {
    const Tensor& gradient = item.tensor.grad();
    if (!*item.reached || !gradient.defined())
      breaches += "\n  adapter tensor '" + item.name + "' got no gradient";
    else if (!at::isfinite(gradient).all().item<bool>())
      breaches += "\n  the gradient of adapter tensor '" + item.name + "' is not finite";
    else
      continue;
    if (first == nullptr) first = &item.tensor;
  }
  if (first != nullptr) blame_owner(model_, *first, "the gradient check", "a parameter would not learn:" + breaches);
  check_frozen();
}

void GradientCheck::check_step(const Optimizer& optimizer) {
  for (const Watched& item : watched_)
    if (item.tensor.scalar_type() != item.dtype || item.tensor.sizes() != at::IntArrayRef(item.sizes) ||
        !item.tensor.is_leaf() || !item.tensor.requires_grad())
      detail::blame(optimizer, "step",
                    "it changed the dtype or the shape of parameter '" + item.name +
                        "', or made it require no gradient; a step must change values only, in place");
  remove_hooks();
  open_ = false;
}

}  // namespace peft
