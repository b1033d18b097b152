// The sign of a running mean of the gradient (Bernstein et al. 2018): every element moves by lr.
#include <peft/base/error.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>
#include <torch/utils.h>

#include <cmath>

namespace {

struct SignumOptions {
  double lr = 1e-4, momentum = 0.9, weight_decay = 0;
};

class Signum final : public peft::Optimizer {
 public:
  explicit Signum(SignumOptions options) : options_(options) {}

 protected:
  void do_step() override;
  peft::StateDict do_state_dict() const override { return mean_; }
  void do_load_state_dict(const peft::StateDict& state) override;
  uint64_t do_state_bytes(const torch::Tensor& parameter) const override { return parameter.nbytes(); }

  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }

 private:
  SignumOptions options_;
  peft::StateDict mean_;  // by parameter name, from a parameter's first gradient on
};

void Signum::do_step() {
  const torch::NoGradGuard no_grad;
  const peft::MemoryScope scope(peft::MemoryComponent::optimizer);
  for (const peft::ParamGroup& group : groups_)
    for (const auto& [name, parameter] : group.parameters) {
      const torch::Tensor gradient = parameter.grad();
      if (!gradient.defined()) continue;
      const auto [it, fresh] = mean_.try_emplace(name);
      if (fresh) it->second = torch::zeros_like(gradient);
      it->second.lerp_(gradient, 1 - options_.momentum);
      torch::Tensor(parameter).mul_(1 - group.lr * *group.weight_decay).sub_(it->second.sign(), group.lr);
    }
}

void Signum::do_load_state_dict(const peft::StateDict& state) {
  peft::StateDict known, loaded;
  for (const peft::ParamGroup& group : groups_) known.insert(group.parameters.begin(), group.parameters.end());
  for (const auto& [name, tensor] : state) {
    const auto it = known.find(name);
    if (it == known.end() || it->second.sizes() != tensor.sizes())
      throw peft::InputError("signum: the saved state '" + peft::printable(name) + "' is not of these parameters");
    loaded[name] = tensor.to(it->second.options().requires_grad(false), false, /*copy=*/true);
  }
  mean_ = std::move(loaded);
}

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  SignumOptions o;
  in.get("lr", o.lr, "learning rate").require(std::isfinite(o.lr) && o.lr >= 0, "must be 0 or more");
  in.get("momentum", o.momentum, "decay of the running mean")
      .require(o.momentum >= 0 && o.momentum < 1, "must be in [0, 1)");
  in.get("weight_decay", o.weight_decay, "decoupled weight decay: each step subtracts lr · weight_decay · parameter")
      .require(std::isfinite(o.weight_decay) && o.weight_decay >= 0, "must be 0 or more");
  return std::make_unique<Signum>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("signum", make); }

}  // namespace

PEFT_PLUGIN("signum", "0.1.0", add)
