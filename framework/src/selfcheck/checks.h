#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "peft/adapters/adapter.h"
#include "peft/options/document.h"
#include "peft/plugin/plugins.h"
#include "peft/selfcheck/selfcheck.h"
#include "peft/train/clipping.h"
#include "peft/train/objective.h"
#include "peft/train/optimizer.h"
#include "peft/train/precision.h"
#include "peft/train/scheduler.h"

namespace peft {

/// The plugin under test: any number of objects with the same options.
struct Subject {
  Plugins& plugins;
  std::string name;
  std::string options;  ///< TOML of the plugin's table without `name`
  template <class Interface>
  std::unique_ptr<Interface> make() const {
    const std::string table = Kind<Interface>::name;
    Document document = Document::from_text("[" + table + "]\n" + options + "\n", "selfcheck");
    Options in = document.table(table);
    auto object = plugins.make<Interface>(name, in);
    document.finish();
    return object;
  }
};

/// The results of the checks so far.
class Checks {
 public:
  void report(const std::string& name, bool passed, const std::string& detail) {
    results_.push_back({name, passed, detail});
  }
  /// Reports `name` as passed with `detail` if work() returns "", else as failed with the text. An exception that
  /// leaves work() is a failure, too. Returns whether it passed.
  bool check(const std::string& name, const std::string& detail, const std::function<std::string()>& work);
  std::vector<CheckResult> results() && { return std::move(results_); }

 private:
  std::vector<CheckResult> results_;
};

// The checks of each kind. A kind in plugin/kinds.h without its function here does not compile (selfcheck.cpp).
void run_checks(Kind<Adapter>, const Subject& subject, Checks& checks);
void run_checks(Kind<Optimizer>, const Subject& subject, Checks& checks);
void run_checks(Kind<Scheduler>, const Subject& subject, Checks& checks);
void run_checks(Kind<GradientClipping>, const Subject& subject, Checks& checks);
void run_checks(Kind<Precision>, const Subject& subject, Checks& checks);
void run_checks(Kind<Objective>, const Subject& subject, Checks& checks);

/// A copy of each tensor, as a file would hold it.
StateDict copy_of(const StateDict& state);
/// "" if the two hold the same tensors, bit for bit; else what differs.
std::string difference(const std::vector<Tensor>& expected, const std::vector<Tensor>& found);
std::string difference(const StateDict& expected, const StateDict& found);
/// "" if `object` throws InputError for a state that is not its own.
std::string accepts_foreign_state(Stateful& object);
/// A few digits.
std::string text_of_number(double value);

/// A check of every kind with state: its state restores it. `run`(object, step) takes a step and returns what it
/// computed; objects must give equal tensors.
template <class Interface>
void check_state(const Subject& subject, Checks& checks, int64_t steps,
                 const std::function<std::vector<Tensor>(Interface& object, int64_t step)>& run) {
  checks.check("the saved state restores it", std::to_string(steps) + " steps, saved after each", [&]() -> std::string {
    const auto uninterrupted = subject.make<Interface>();
    std::vector<std::vector<Tensor>> expected;
    std::vector<StateDict> states = {copy_of(uninterrupted->state_dict())};
    for (int64_t step = 0; step < steps; ++step) {
      expected.push_back(run(*uninterrupted, step));
      states.push_back(copy_of(uninterrupted->state_dict()));
    }
    for (int64_t from = 0; from <= steps; ++from) {
      const auto resumed = subject.make<Interface>();
      const auto at = static_cast<std::size_t>(from);
      if (!states[at].empty()) resumed->load_state_dict(states[at]);
      std::string problem = difference(states[at], resumed->state_dict());
      for (int64_t step = from; step < steps && problem.empty(); ++step)
        problem = difference(expected[static_cast<std::size_t>(step)], run(*resumed, step));
      if (!problem.empty()) return "restored after step " + std::to_string(from) + ": " + problem;
    }
    return "";
  });
  checks.check("it refuses a state that is not its own", "InputError",
               [&] { return accepts_foreign_state(*subject.make<Interface>()); });
}

}  // namespace peft
