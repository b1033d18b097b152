// Stochastic gradient descent with momentum, as torch.optim.SGD defines it.
#include <peft/base/error.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>
#include <torch/torch.h>

#include "../common_options.h"

namespace {

using torch::Tensor;

struct SgdOptions {
  double lr = 1e-2, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
};

class Sgd final : public peft::Optimizer {
 public:
  explicit Sgd(SgdOptions options) : options_(options) {}

 protected:
  void do_step() override;
  peft::StateDict do_state_dict() const override { return momentum_; }
  void do_load_state_dict(const peft::StateDict& state) override;
  uint64_t do_state_bytes(const Tensor& parameter) const override {
    return options_.momentum > 0 ? parameter.nbytes() : 0;
  }

  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }

 private:
  SgdOptions options_;
  peft::StateDict momentum_;  ///< by parameter name, from a parameter's first gradient on
};

void Sgd::do_step() {
  const torch::NoGradGuard no_grad;
  const peft::MemoryScope scope(peft::MemoryComponent::optimizer);
  for (const peft::ParamGroup& group : groups_) {
    std::vector<Tensor> parameters, directions;
    for (const auto& [name, parameter] : group.parameters) {
      if (!parameter.grad().defined()) continue;
      Tensor direction = parameter.grad();
      if (*group.weight_decay != 0) direction = direction.add(parameter, *group.weight_decay);
      if (options_.momentum > 0) {
        const auto [it, fresh] = momentum_.try_emplace(name);
        if (fresh)
          it->second = direction.clone();
        else
          it->second.mul_(options_.momentum).add_(direction, 1 - options_.dampening);
        direction = options_.nesterov ? direction.add(it->second, options_.momentum) : it->second;
      }
      parameters.push_back(parameter);
      directions.push_back(direction);
    }
    if (!parameters.empty()) at::_foreach_add_(parameters, directions, -group.lr);
  }
}

void Sgd::do_load_state_dict(const peft::StateDict& state) {
  std::map<std::string, Tensor> known;
  for (const peft::ParamGroup& group : groups_) known.insert(group.parameters.begin(), group.parameters.end());
  peft::StateDict loaded;
  for (const auto& [name, tensor] : state) {
    const auto it = known.find(name);
    if (it == known.end() || it->second.sizes() != tensor.sizes() || options_.momentum == 0)
      throw peft::InputError("sgd: the saved state '" + peft::printable(name) + "' is not of these parameters");
    loaded[name] = tensor.to(it->second.options().requires_grad(false), false, /*copy=*/true);
  }
  momentum_ = std::move(loaded);
}

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  SgdOptions o;
  read_lr(in, o.lr);
  in.get("momentum", o.momentum, "momentum factor").require(o.momentum >= 0 && o.momentum < 1, "must be in [0, 1)");
  in.get("dampening", o.dampening, "dampening of the gradient in the momentum")
      .require(o.dampening >= 0 && o.dampening <= 1, "must be in [0, 1]");
  in.get("nesterov", o.nesterov, "use Nesterov momentum")
      .require(!o.nesterov || (o.momentum > 0 && o.dampening == 0), "needs momentum above 0 and dampening 0");
  in.get("weight_decay", o.weight_decay, "L2 penalty, added to the gradient")
      .require(std::isfinite(o.weight_decay) && o.weight_decay >= 0, "must be 0 or more");
  return std::make_unique<Sgd>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("sgd", make); }

}  // namespace

PEFT_PLUGIN("sgd", "1.0.0", add)
