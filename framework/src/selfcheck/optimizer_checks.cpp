// What peft/train/optimizer.h promises.
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

#include "runtime/finite.h"
#include "selfcheck/checks.h"

namespace peft {

namespace {

/// An optimizer with two groups: a matrix that is large enough for 8-bit state, and a vector; a matrix with a rate and
/// a decay of its own that lacks a gradient now and then, and a parameter that never has one.
class Bench {
 public:
  explicit Bench(const Subject& subject, std::optional<double> second_lr = 3e-3)
      : optimizer_(subject.make<Optimizer>()) {
    auto generator = at::detail::createCPUGenerator(1);
    const auto leaf = [&](at::IntArrayRef shape) { return torch::randn(shape, generator).requires_grad_(); };
    ParamGroup first, second;
    first.name = "first", second.name = "second";
    first.parameters = {{"a", leaf({64, 80})}, {"b", leaf({6})}};
    second.parameters = {{"c", leaf({12, 40})}, {"idle", leaf({5, 5})}};
    second.initial_lr = second_lr;
    second.weight_decay = 0.1;
    optimizer_->add_param_group(first);
    optimizer_->add_param_group(second);
    // A test needs steps, whatever rate the options name.
    if (ParamGroup& group = optimizer_->groups().front(); !(*group.initial_lr > 0)) group.initial_lr = group.lr = 1e-3;
  }
  Optimizer& operator*() { return *optimizer_; }
  Optimizer* operator->() { return optimizer_.get(); }
  std::vector<Tensor> parameters() const { return parameters_of(optimizer_->groups()); }
  Tensor parameter(const std::string& name) const {
    for (const ParamGroup& group : optimizer_->groups())
      for (const auto& [key, tensor] : group.parameters)
        if (key == name) return tensor;
    return {};
  }
  std::vector<Tensor> values() const {
    std::vector<Tensor> all;
    for (const Tensor& parameter : parameters()) all.push_back(parameter.detach().clone());
    return all;
  }
  /// The gradient of half the sum of squares, plus noise that depends on `step`; or 0.
  void set_gradients(int64_t step, double noise, bool zero = false) {
    auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(step + 1));
    for (const char* name : {"a", "b", "c"}) {
      Tensor p = parameter(name);
      const Tensor random = torch::randn(p.sizes(), generator) * noise;
      if (std::string(name) == "c" && step % 3 == 2) continue;
      p.mutable_grad() = zero ? at::zeros_like(p) : p.detach() + random;
    }
  }
  void step(int64_t number, double noise = 0.3, bool zero = false) {
    if (optimizer_->needs_sampled_label_gradients()) {
      set_gradients(number + 1000, noise, zero);
      optimizer_->on_sampled_label_gradients(30);
      optimizer_->zero_grad();
    }
    set_gradients(number, noise, zero);
    optimizer_->step();
    optimizer_->zero_grad();
  }
  void steps(int64_t first, int64_t last) {
    for (int64_t number = first; number < last; ++number) step(number);
  }

 private:
  std::unique_ptr<Optimizer> optimizer_;
};

constexpr int64_t kSteps = 12, kSavedAt = 5;

double half_squares(const Bench& bench) { return bench.parameter("a").detach().square().sum().item<double>() / 2; }

std::string check_descent(const Subject& subject) {
  Bench bench(subject);
  const double before = half_squares(bench);
  for (int64_t number = 0; number < 20; ++number) bench.step(number, /*noise=*/0);
  bench->eval();
  const double after = half_squares(bench);
  return after < before ? "" : "it went from " + text_of_number(before) + " to " + text_of_number(after);
}

/// Only values change, and only those that should.
std::string check_touched(const Subject& subject) {
  Bench bench(subject, /*second_lr=*/0);
  const std::vector<Tensor> parameters = bench.parameters(), before = bench.values();
  bench.steps(0, kSteps);
  bench->eval();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i].scalar_type() != torch::kFloat || parameters[i].sizes() != before[i].sizes() ||
        !parameters[i].is_leaf() || !parameters[i].requires_grad())
      return "it changed the dtype or the shape of a parameter, or made it require no gradient";
  const auto is_same = [&](std::size_t i) { return at::equal(parameters[i].detach(), before[i]); };
  if (!is_same(3)) return "it changed a parameter without a gradient";
  if (!is_same(2)) return "it changed a parameter of a group whose learning rate is 0";
  return is_same(0) || is_same(1) ? "it did not change a parameter with a gradient" : "";
}

std::string check_zero_gradients(const Subject& subject) {
  Bench bench(subject);
  for (int64_t number = 0; number < 3; ++number) bench.step(number, 0, /*zero=*/true);
  bench->eval();
  for (const Tensor& parameter : bench.parameters())
    if (!all_finite(parameter.detach())) return "parameters become NaN or infinite";
  return "";
}

std::string check_zero_grad(const Subject& subject) {
  Bench bench(subject);
  bench.set_gradients(0, 1);
  bench->zero_grad();
  for (const Tensor& parameter : bench.parameters())
    if (parameter.grad().defined() && parameter.grad().count_nonzero().item<int64_t>() != 0)
      return "a gradient is left";
  return "";
}

/// As the loop saves and resumes: the state is taken between eval() and train().
std::string check_resuming(const Subject& subject) {
  Bench uninterrupted(subject), saved(subject), resumed(subject);
  uninterrupted.steps(0, kSteps);
  saved.steps(0, kSavedAt);
  saved->eval();
  const StateDict state = copy_of(saved->state_dict());
  const std::vector<Tensor> values = saved.values(), into = resumed.parameters();
  {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < into.size(); ++i) Tensor(into[i]).copy_(values[i]);
  }
  if (!state.empty()) resumed->load_state_dict(state);
  std::string problem = difference(state, resumed->state_dict());
  if (!problem.empty()) return problem;
  resumed->train();
  resumed.steps(kSavedAt, kSteps);
  problem = difference(uninterrupted.values(), resumed.values());
  if (!problem.empty()) return "the resumed parameters: " + problem;
  saved->train();
  saved.steps(kSavedAt, kSteps);
  problem = difference(uninterrupted.values(), saved.values());
  return problem.empty() ? "" : "saving changes the run: " + problem;
}

std::string check_eval(const Subject& subject) {
  Bench bench(subject);
  bench.steps(0, kSavedAt);
  const std::vector<Tensor> trained = bench.values();
  bench->eval();
  const std::vector<Tensor> evaluated = bench.values();
  bench->eval();
  if (!difference(evaluated, bench.values()).empty()) return "a second eval() changes the parameters";
  bench->train();
  bench->train();
  return difference(trained, bench.values()).empty() ? "" : "train() does not restore the parameters";
}

/// The state of the two parameters that have a gradient in every step. What shares their memory does not count.
std::string check_bytes(const Subject& subject) {
  Bench bench(subject);
  bench.steps(0, 1);
  const StateDict state = bench->state_dict();
  for (const char* name : {"a", "c"}) {
    const Tensor parameter = bench.parameter(name);
    const uint64_t promised = bench->state_bytes(parameter);
    uint64_t held = 0;
    for (const auto& [key, tensor] : state)
      if (key == name || key.starts_with(std::string(name) + "."))
        if (tensor.numel() > 1 && !tensor.is_alias_of(parameter)) held += tensor.nbytes();
    if (held != promised)
      return "state_bytes says " + std::to_string(promised) + " for a parameter " + std::string(name) + " of " +
             std::to_string(parameter.numel()) + " elements, and its state has " + std::to_string(held);
  }
  return "";
}

}  // namespace

void run_checks(Kind<Optimizer>, const Subject& subject, Checks& checks) {
  checks.check("its steps reduce a quadratic", "20 steps", [&] { return check_descent(subject); });
  checks.check("it changes the values of what has a gradient and a learning rate, and nothing else",
               "12 steps, two param groups", [&] { return check_touched(subject); });
  checks.check("gradients of 0 leave finite values", "3 steps", [&] { return check_zero_gradients(subject); });
  checks.check("zero_grad clears every gradient", "4 parameters", [&] { return check_zero_grad(subject); });
  checks.check("eval and train swap the parameters", "train restores them bit for bit",
               [&] { return check_eval(subject); });
  checks.check("the saved state restores it", "12 steps, saved after 5: the same parameters",
               [&] { return check_resuming(subject); });
  checks.check("state_bytes is the size of its state", "what plan prints", [&] { return check_bytes(subject); });
  checks.check("it refuses a state that is not its own", "InputError", [&] {
    Bench bench(subject);
    return accepts_foreign_state(*bench);
  });
}

}  // namespace peft
