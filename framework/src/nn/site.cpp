#include "peft/nn/site.h"

#include "nn/adapted_linear.h"
#include "ops/kernels.h"
#include "peft/base/error.h"
#include "plugin/plugin_call.h"

namespace peft {

AdapterLayer::~AdapterLayer() = default;
bool AdapterLayer::merge_into(WeightAndBias&) const { return false; }
std::optional<LowRank> AdapterLayer::as_lora() const { return std::nullopt; }

namespace {

void require_none_innermost(const Site& site) {
  for (const auto& layer : site.layers())
    if (layer->innermost())
      throw ConfigError("[adapter] '" + printable(site.path()) +
                        "': an adapter around it computes with the frozen weights, so no other can stand between; "
                        "declare that one last");
}

}  // namespace

Site::Site(SiteInfo info) : info_(std::move(info)) {
  if (info_.checkpoint_path.empty()) info_.checkpoint_path = info_.path;
}
Site::~Site() = default;

void Site::attach(const std::string& adapter, std::shared_ptr<AdapterLayer> layer) {
  TORCH_CHECK(layer != nullptr, "no layer to attach to ", path());
  require_none_innermost(*this);
  std::string name = adapter;
  for (int n = 2; named_children().contains(name); ++n) name = adapter + "_" + std::to_string(n);
  layers_.push_back(register_module(name, std::move(layer)));
}

void Site::detach(const std::shared_ptr<AdapterLayer>& layer) {
  std::erase(layers_, layer);
  for (const auto& child : named_children())
    if (child.value() == layer) return unregister_module(child.key());
}

Tensor Site::make_trainable(const std::string& parameter, torch::Dtype dtype) {
  const Tensor& frozen = parameter == "bias" ? frozen_.bias : frozen_.weight;
  if (const auto it = copies_.find(parameter); it != copies_.end()) return it->second;
  if (parameter == "weight") require_none_innermost(*this);
  Tensor copy;
  if (frozen.defined()) {
    copy = frozen.detach().to(dtype, /*non_blocking=*/false, /*copy=*/true);
  } else {
    TORCH_CHECK(parameter == "bias", path(), " has no ", parameter);
    copy = torch::zeros({frozen_.weight.size(0)}, frozen_.weight.options().dtype(dtype));
  }
  // A child holds it: the site's own name for it is taken by the frozen one.
  auto holder = named_children().contains("trained")
                    ? named_children()["trained"]
                    : register_module("trained", std::make_shared<torch::nn::Module>());
  return copies_[parameter] = holder->register_parameter(parameter, copy);
}

NamedTensors Site::adapter_tensors() const {
  NamedTensors all(copies_.begin(), copies_.end());
  for (const auto& layer : layers_) {
    for (const auto& item : layer->named_parameters()) all.emplace_back(item.key(), item.value());
    for (const auto& item : layer->named_buffers()) all.emplace_back(item.key(), item.value());
  }
  return all;
}

void Site::set_frozen(WeightAndBias weights) {
  for (auto& [name, tensor] : {std::pair<std::string, Tensor>{"weight", weights.weight}, {"bias", weights.bias}})
    if (tensor.defined()) register_parameter(name, tensor, /*requires_grad=*/false);
  frozen_ = std::move(weights);
}

std::vector<std::string> Site::parameter_names() const { return {"weight"}; }

Tensor Site::current(const std::string& name, const Tensor& frozen) const {
  if (!enabled_) return frozen;
  const bool shared = has_tied_weight() && name == "weight" && !copies_.contains(name);
  const auto& copies = shared ? tied_to_->copies_ : copies_;
  const auto copy = copies.find(name);
  if (copy == copies.end()) return frozen;
  return copy->second.to(frozen_.weight.scalar_type());
}

Tensor Site::weight() const { return current("weight", frozen_.weight); }
Tensor Site::bias() const { return current("bias", frozen_.bias); }

namespace {

Tensor run_layers(const std::vector<std::shared_ptr<AdapterLayer>>& layers, std::size_t first, const Tensor& x,
                  const Next& base) {
  if (first == layers.size()) return base(x);
  AdapterLayer& layer = *layers[first];
  return detail::call_plugin_with_callback(layer, "forward", [&](detail::CoreCallback& outside) {
    return layer.forward(
        x, [&](const Tensor& v) { return outside([&] { return run_layers(layers, first + 1, v, base); }); });
  });
}

}  // namespace

Tensor Site::apply_layers(const Tensor& x, const Next& base) const {
  return adapted() ? run_layers(layers_, 0, x, base) : base(x);
}

std::optional<WeightAndBias> Site::merged_weight(const WeightAndBias& base) const {
  const torch::NoGradGuard no_grad;
  const auto start = [&](const char* parameter, const Tensor& own) {
    const auto copy = copies_.find(parameter);
    if (copy != copies_.end()) return copy->second.to(base.weight.scalar_type(), false, /*copy=*/true);
    return own.defined() ? own.clone() : own;
  };
  WeightAndBias weights{start("weight", base.weight), start("bias", base.bias)};
  // The last attached is the innermost.
  for (auto it = layers_.rbegin(); it != layers_.rend(); ++it) {
    const AdapterLayer& layer = **it;
    if (!weights.weight.defined() || !detail::call_plugin(layer, "fold", [&] { return layer.merge_into(weights); }))
      return std::nullopt;
  }
  return weights;
}

Linear::Linear(SiteInfo info, int64_t in, int64_t out, bool bias)
    : Site(std::move(info)), in_(in), out_(out), has_bias_(bias) {}
Linear::~Linear() = default;

std::vector<std::string> Linear::parameter_names() const {
  return has_bias_ ? std::vector<std::string>{"weight", "bias"} : std::vector<std::string>{"weight"};
}

Tensor Linear::forward(const Tensor& x) const {
  if (fused() && adapted())
    if (const auto linear = adapted_linear(*this)) return low_rank_linear(x, *linear);
  return apply_layers(x, [this](const Tensor& v) { return frozen_linear(v, weight(), bias()); });
}

Embedding::Embedding(SiteInfo info, int64_t rows, int64_t hidden)
    : Site(std::move(info)), rows_(rows), hidden_(hidden) {}
Embedding::~Embedding() = default;

Tensor Embedding::forward(const Tensor& ids) const {
  return apply_layers(ids, [this](const Tensor& v) { return at::embedding(weight(), v); });
}

Norm::Norm(SiteInfo info, int64_t hidden, double eps) : Site(std::move(info)), hidden_(hidden), eps_(eps) {}
Norm::~Norm() = default;

Tensor Norm::forward(const Tensor& x) const {
  return apply_layers(x, [this](const Tensor& v) { return rms_norm(v, weight(), eps_); });
}

}  // namespace peft
