// Schedule-free AdamW: gradients at an interpolation, evaluation at an average (Defazio et al. 2024, arXiv 2405.15682),
// as the authors' schedulefree.AdamWScheduleFree. In training the parameters have y; z is state; x follows from both.
#include "../common_options.h"
#include "../per_parameter.h"

namespace {

using torch::Tensor;

struct ScheduleFreeOptions {
  double lr = 2.5e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, r = 0, weight_lr_power = 2;
};

/// State of the average, one for each group.
struct Average {
  int64_t steps = 0;
  double weight_sum = 0, lr_max = 0;
  double share = 0;  ///< weight of the next z in x
};

class ScheduleFree final : public PerParameter {
 public:
  explicit ScheduleFree(ScheduleFreeOptions options) : PerParameter("schedule_free_adamw"), options_(options) {}

 protected:
  void do_step() override;
  void do_eval() override;
  void do_train() override;
  peft::StateDict do_state_dict() const override;
  void do_load_state_dict(const peft::StateDict& state) override;

  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }
  peft::StateDict make_state(const Tensor& parameter) const override {
    return {{"z", parameter.clone()}, {"exp_avg_sq", at::zeros_like(parameter)}};
  }
  void update(Tensor y, const Tensor& gradient, ParamState& state, const peft::ParamGroup& group) override;

 private:
  Average& average_of(const peft::ParamGroup& group) {
    averages_.resize(groups_.size());
    return averages_.at(static_cast<std::size_t>(&group - groups_.data()));
  }
  static std::string prefix(std::size_t group) { return "group." + std::to_string(group) + "."; }
  ScheduleFreeOptions options_;
  std::vector<Average> averages_;
  std::map<std::string, Tensor> y_;  ///< the trained values, while the parameters have x
};

void ScheduleFree::do_step() {
  do_train();
  for (const peft::ParamGroup& group : groups_) {
    Average& average = average_of(group);
    average.lr_max = std::max(average.lr_max, group.lr);
    const double weight = std::pow(average.steps + 1, options_.r) * std::pow(average.lr_max, options_.weight_lr_power);
    average.weight_sum += weight;
    average.share = average.weight_sum > 0 ? weight / average.weight_sum : 0;
    ++average.steps;
  }
  PerParameter::do_step();
}

void ScheduleFree::update(Tensor y, const Tensor& gradient, ParamState& state, const peft::ParamGroup& group) {
  const Average& average = average_of(group);
  Tensor &z = state["z"], &exp_avg_sq = state["exp_avg_sq"];
  exp_avg_sq.mul_(options_.beta2).addcmul_(gradient, gradient, 1 - options_.beta2);
  const double correction = 1 - std::pow(options_.beta2, average.steps);
  Tensor direction = gradient / exp_avg_sq.div(correction).sqrt_().add_(options_.eps);
  if (*group.weight_decay != 0) direction.add_(y, *group.weight_decay);
  y.lerp_(z, average.share);
  y.add_(direction, group.lr * (options_.beta1 * (1 - average.share) - 1));
  z.sub_(direction, group.lr);
}

void ScheduleFree::do_eval() {
  const torch::NoGradGuard no_grad;
  const peft::MemoryScope scope(peft::MemoryComponent::optimizer);
  if (!y_.empty()) return;
  for (const peft::ParamGroup& group : groups_)
    for (const auto& [name, parameter] : group.parameters) {
      const auto found = states().find(name);
      if (found == states().end()) continue;
      y_[name] = parameter.detach().clone();
      Tensor(parameter).lerp_(found->second["z"], 1 - 1 / options_.beta1);
    }
}

void ScheduleFree::do_train() {
  const torch::NoGradGuard no_grad;
  for (const peft::ParamGroup& group : groups_)
    for (const auto& [name, parameter] : group.parameters)
      if (const auto y = y_.find(name); y != y_.end()) Tensor(parameter).copy_(y->second);
  y_.clear();
}

/// Includes y, because computing it from x and z would not give the same bits.
peft::StateDict ScheduleFree::do_state_dict() const {
  peft::StateDict state = PerParameter::do_state_dict();
  for (const peft::ParamGroup& group : groups_)
    for (const auto& [name, parameter] : group.parameters)
      if (state.contains(name + ".step")) state[name + ".y"] = y_.contains(name) ? y_.at(name) : parameter.detach();
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    state[prefix(i) + "steps"] = torch::tensor(averages_[i].steps, torch::kLong);
    state[prefix(i) + "weight_sum"] = torch::tensor(averages_[i].weight_sum, torch::kDouble);
    state[prefix(i) + "lr_max"] = torch::tensor(averages_[i].lr_max, torch::kDouble);
  }
  return state;
}

void ScheduleFree::do_load_state_dict(const peft::StateDict& state) {
  const torch::NoGradGuard no_grad;
  peft::StateDict rest = state;
  const auto take = [&](const std::string& name, at::IntArrayRef shape) {
    const auto node = rest.extract(name);
    if (!node || node.mapped().sizes() != shape)
      throw peft::InputError("schedule_free_adamw: the saved state lacks '" + peft::printable(name) +
                             "' with the shape of these parameters");
    return node.mapped();
  };
  std::vector<Average> averages(state.empty() ? 0 : groups_.size());
  for (std::size_t i = 0; i < averages.size(); ++i)
    averages[i] = {take(prefix(i) + "steps", {}).item<int64_t>(), take(prefix(i) + "weight_sum", {}).item<double>(),
                   take(prefix(i) + "lr_max", {}).item<double>()};
  std::vector<std::pair<Tensor, Tensor>> trained;
  for (const peft::ParamGroup& group : groups_)
    for (const auto& [name, parameter] : group.parameters)
      if (state.contains(name + ".step")) trained.emplace_back(parameter, take(name + ".y", parameter.sizes()));
  PerParameter::do_load_state_dict(rest);
  y_.clear();
  averages_ = averages;
  for (auto& [parameter, y] : trained) parameter.copy_(y);
}

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  ScheduleFreeOptions o;
  read_lr(in, o.lr);
  in.get("beta1", o.beta1, "interpolation between z (0) and the average (1) at which gradients are computed")
      .require(o.beta1 > 0 && o.beta1 < 1, "must be between 0 and 1");
  read_beta(in, "beta2", o.beta2, "decay of the running mean of the squared gradients");
  read_positive(in, "eps", o.eps, "added to the square root of that mean, for stability");
  in.get("weight_decay", o.weight_decay, "weight decay, added to the update direction")
      .require(std::isfinite(o.weight_decay) && o.weight_decay >= 0, "must be 0 or more");
  in.get("r", o.r, "power of the step in the weights of the average; larger values weigh later steps more")
      .require(std::isfinite(o.r) && o.r >= 0, "must be 0 or more");
  in.get("weight_lr_power", o.weight_lr_power,
         "power of the highest learning rate so far in the weights of the average")
      .require(std::isfinite(o.weight_lr_power) && o.weight_lr_power >= 0, "must be 0 or more");
  return std::make_unique<ScheduleFree>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("schedule_free_adamw", make); }

}  // namespace

PEFT_PLUGIN("schedule_free_adamw", "1.0.0", add)
