#include "peft/nn/site.h"

#include <torch/nn/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "nn/module_check.h"
#include "peft/base/error.h"
#include "plugin/plugin_call.h"

namespace peft {

AdapterModule::~AdapterModule() = default;

AdapterLayer::~AdapterLayer() = default;
bool AdapterLayer::merge_into(WeightAndBias&) const { return false; }
std::optional<LowRank> AdapterLayer::as_lora() const { return std::nullopt; }

namespace {

void require_none_innermost(const Site& site) {
  for (const auto& layer : site.layers())
    if (layer->innermost())
      throw ConfigError(
          "[adapter] '" + printable(site.path()) +
          "': an adapter around it computes with the frozen weights, so no other adapter may be inside it; "
          "declare that one last");
}

}  // namespace

Site::Site(SiteInfo info) : info_(std::move(info)) {
  if (info_.checkpoint_path.empty()) info_.checkpoint_path = info_.path;
}
Site::~Site() = default;

void Site::add_adapter_module(const std::string& adapter, std::shared_ptr<AdapterModule> module) {
  TORCH_CHECK(module != nullptr, "nothing to attach to ", path());
  require_none_innermost(*this);
  std::string name = adapter;
  for (int n = 2; named_children().contains(name); ++n) name = adapter + "_" + std::to_string(n);
  modules_.push_back(register_module(name, std::move(module)));
}

void Site::attach(const std::string& adapter, std::shared_ptr<AdapterLayer> layer) {
  add_adapter_module(adapter, layer);
  layers_.push_back(std::move(layer));
}

void Site::detach(const std::shared_ptr<AdapterLayer>& layer) {
  std::erase(layers_, layer);
  std::erase(modules_, layer);
  for (const auto& child : named_children())
    if (child.value() == layer) return unregister_module(child.key());
}

Tensor Site::make_trainable(const std::string& parameter, torch::Dtype dtype) {
  if (const auto it = copies_.find(parameter); it != copies_.end()) return it->second;
  if (parameter == "weight") require_none_innermost(*this);
  const Tensor frozen = parameter == "bias" ? base_bias_ : dense();
  Tensor copy;
  if (frozen.defined()) {
    copy = frozen.detach().to(dtype, /*non_blocking=*/false, /*copy=*/true);
  } else {
    TORCH_CHECK(parameter == "bias", path(), " has no ", parameter);
    copy = torch::zeros({weight_sizes().front()}, torch::dtype(dtype).device(device()));
  }
  // A child module holds it, because the site's own name for it belongs to the frozen parameter.
  auto holder = named_children().contains("trained")
                    ? named_children()["trained"]
                    : register_module("trained", std::make_shared<torch::nn::Module>());
  return copies_[parameter] = holder->register_parameter(parameter, copy);
}

NamedTensors Site::adapter_tensors() const {
  NamedTensors all(copies_.begin(), copies_.end());
  for (const auto& module : modules_) {
    for (const auto& item : module->named_parameters()) all.emplace_back(item.key(), item.value());
    for (const auto& item : module->named_buffers()) all.emplace_back(item.key(), item.value());
  }
  return all;
}

void Site::load_base_weight(std::shared_ptr<const FrozenWeight> weight, Tensor bias) {
  const auto register_frozen = [this](std::string name, const Tensor& tensor) {
    std::ranges::replace(name, '.', '/');  // torch allows no dot in a name
    register_parameter(name, tensor, /*requires_grad=*/false);
  };
  if (weight != nullptr)
    for (const auto& [name, tensor] : weight->parts())
      register_frozen(name.empty() ? "weight" : "weight." + name, tensor);
  if (bias.defined()) register_frozen("bias", bias);
  base_weight_ = std::move(weight);
  base_bias_ = std::move(bias);
}

void Site::load_base_weight(const WeightAndBias& dense) {
  load_base_weight(dense.weight.defined() ? std::make_shared<DenseWeight>(dense.weight) : nullptr, dense.bias);
}

Tensor Site::dense() const { return base_weight_ == nullptr ? Tensor() : base_weight_->dense(); }
Tensor Site::dense(torch::Dtype dtype) const { return base_weight_ == nullptr ? Tensor() : base_weight_->dense(dtype); }

namespace {

const FrozenWeight& weight_of(const Site& site) {
  TORCH_CHECK(site.base_weight() != nullptr, "'", site.path(), "' has no weight");
  return *site.base_weight();
}

}  // namespace

std::vector<int64_t> Site::weight_sizes() const { return weight_of(*this).sizes(); }
torch::Dtype Site::dtype() const { return weight_of(*this).dtype(); }
torch::Device Site::device() const { return weight_of(*this).device(); }

std::vector<std::string> Site::parameter_names() const { return {"weight"}; }

Tensor Site::active_copy(const std::string& parameter) const {
  if (!enabled_) return {};
  const bool shared = has_tied_weight() && parameter == "weight" && !copies_.contains(parameter);
  const auto& copies = shared ? tied_to_->copies_ : copies_;
  const auto copy = copies.find(parameter);
  return copy == copies.end() ? Tensor() : copy->second.to(dtype());
}

Tensor Site::active_bias() const {
  const Tensor copy = active_copy("bias");
  return copy.defined() ? copy : base_bias_;
}

namespace {

/// Runs the site's layers from `first` on around `base`.
Tensor run_layers(const Site& site, std::size_t first, const Tensor& x, const Next& base) {
  if (first == site.layers().size()) return base(x);
  AdapterLayer& layer = *site.layers()[first];
  return detail::call_plugin_with_callback(layer, "forward", [&](detail::CoreCallback& core) {
    ModuleGraph graph(site);
    graph.add_input(x);
    const Tensor y = layer.forward(x, [&](const Tensor& v) {
      check_layer_input(site, x, v);
      graph.add_result(v);
      const Tensor inner = core([&] { return run_layers(site, first + 1, v, base); });
      graph.add_input(inner);
      return inner;
    });
    check_layer_result(site, x, y);
    graph.add_result(y);
    graph.check();
    return y;
  });
}

}  // namespace

Tensor Site::apply_layers(const Tensor& x, const Next& base) const {
  return adapted() ? run_layers(*this, 0, x, base) : base(x);
}

std::optional<WeightAndBias> Site::merged_weight(const WeightAndBias& base) const {
  if (modules_.size() != layers_.size()) return std::nullopt;  // no weights express virtual tokens or a prefix
  const torch::NoGradGuard no_grad;
  const auto copy_or_base = [&](const char* parameter, const Tensor& from_base) {
    const auto copy = copies_.find(parameter);
    if (copy != copies_.end()) return copy->second.to(base.weight.scalar_type(), false, /*copy=*/true);
    return from_base.defined() ? from_base.clone() : from_base;
  };
  WeightAndBias weights{copy_or_base("weight", base.weight), copy_or_base("bias", base.bias)};
  // From the innermost layer, which was attached last.
  for (auto it = layers_.rbegin(); it != layers_.rend(); ++it) {
    const AdapterLayer& layer = **it;
    if (!weights.weight.defined() ||
        !detail::call_plugin(layer, "merge_into", [&] { return layer.merge_into(weights); }))
      return std::nullopt;
  }
  return weights;
}

}  // namespace peft
