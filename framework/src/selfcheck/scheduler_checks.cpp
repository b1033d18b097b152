// What peft/train/scheduler.h promises.
#include <torch/types.h>
#include <torch/utils.h>

#include <array>
#include <limits>

#include "selfcheck/checks.h"

namespace peft {

namespace {

/// Numbers of steps, short ones too, where warm-up and decay meet.
constexpr std::array<int64_t, 4> kTotals = {1, 2, 7, 100};
constexpr std::array<double, 3> kRates = {1e-3, 1e-5, 1};

/// Falls, rests and rises, as held-out losses do; one is not finite.
double evaluation(int64_t index) {
  constexpr std::array<double, 8> losses = {3, 2, 2.5, 2, 2, 2.2, 2.3, 1.9};
  return index % 11 == 10 ? std::numeric_limits<double>::quiet_NaN()
                          : losses[static_cast<std::size_t>(index) % losses.size()];
}

/// All rates; backwards if wanted.
std::vector<double> rates(const Scheduler& scheduler, bool backwards = false) {
  std::vector<double> all;
  for (const int64_t total : kTotals)
    for (const double base : kRates) {
      std::vector<double> curve(static_cast<std::size_t>(total));
      for (int64_t i = 0; i < total; ++i) {
        const int64_t step = backwards ? total - 1 - i : i;
        curve[static_cast<std::size_t>(step)] = scheduler.lr(step, total, base);
      }
      all.insert(all.end(), curve.begin(), curve.end());
    }
  return all;
}

}  // namespace

void run_checks(Kind<Scheduler>, const Subject& subject, Checks& checks) {
  const auto scheduler = subject.make<Scheduler>();
  checks.check("every learning rate is finite and not negative", "runs of 1, 2, 7 and 100 steps", [&] {
    rates(*scheduler);  // lr() refuses any other
    return std::string();
  });
  checks.check("the learning rate is a function of the step", "the same in any order and in another object", [&] {
    const std::vector<double> first = rates(*scheduler);
    if (rates(*scheduler, /*backwards=*/true) != first) return "another order of calls gives other rates";
    return rates(*subject.make<Scheduler>()) == first ? "" : "another object gives other rates";
  });
  checks.check("a learning rate of 0 remains 0", "a param group that must not train does not", [&] {
    for (const int64_t total : kTotals)
      for (int64_t step = 0; step < total; ++step)
        if (const double lr = scheduler->lr(step, total, 0); lr != 0)
          return "it is " + text_of_number(lr) + " in step " + std::to_string(step) + " of " + std::to_string(total);
    return std::string();
  });
  if (!scheduler->needs_evaluations())
    checks.check("evaluations do not change it, as declared", "needs_evaluations is false", [&] {
      const auto observer = subject.make<Scheduler>();
      for (int64_t i = 0; i < 30; ++i) observer->on_evaluation(evaluation(i));
      return rates(*observer) == rates(*scheduler) ? "" : "they do: needs_evaluations must return true";
    });
  check_state<Scheduler>(subject, checks, 30, [](Scheduler& object, int64_t step) -> std::vector<Tensor> {
    if (object.needs_evaluations()) object.on_evaluation(evaluation(step));
    return {torch::tensor(rates(object), torch::kDouble)};
  });
}

}  // namespace peft
