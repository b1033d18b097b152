// Shows for schedulers: one that depends on evaluations resumes from its saved state as if it had not been interrupted,
// and refuses another scheduler's state; the others have no state. tests/parity/test_optimizers.py compares the curves.
#include "peft/train/scheduler.h"

#include <torch/types.h>

#include <cmath>

#include "peft/base/error.h"
#include "plugins/load.h"
#include "support/test.h"

using namespace peft;

namespace {

const std::string options = "patience = 1\ncooldown = 2\nfactor = 0.5";
const std::vector<double> losses = {3, 2, 2.5, 2.4, 2.3, 2.2, 2.1, 1.5, 1.6, 1.7, 1.8, 1.9, 1.95, 1.97, 2, 2};

}  // namespace

TEST_CASE("a plateau is recognized across an interruption", "[scheduler]") {
  for (std::size_t cut = 0; cut <= losses.size(); ++cut) {
    const auto uninterrupted = test::load<Scheduler>("reduce_on_plateau", options),
               before = test::load<Scheduler>("reduce_on_plateau", options),
               after = test::load<Scheduler>("reduce_on_plateau", options);
    for (std::size_t i = 0; i < losses.size(); ++i) {
      if (i == cut) after->load_state_dict(before->state_dict());
      uninterrupted->on_evaluation(losses[i]);
      (i < cut ? before : after)->on_evaluation(losses[i]);
      CHECK((i < cut ? before : after)->lr(5, 10, 1e-3) == uninterrupted->lr(5, 10, 1e-3));
    }
    CHECK(uninterrupted->lr(5, 10, 1e-3) == 1e-3 / 8);
  }
}

TEST_CASE("an evaluation that is not finite is never the best", "[scheduler]") {
  const auto scheduler = test::load<Scheduler>("reduce_on_plateau", "patience = 2\nfactor = 0.5");
  for (const double loss : {std::nan(""), 5.0, 4.0, std::nan(""), 3.0, 2.0, 1.0, 0.5}) scheduler->on_evaluation(loss);
  CHECK(scheduler->lr(5, 10, 1e-3) == 1e-3);
  for (int i = 0; i < 3; ++i) scheduler->on_evaluation(std::nan(""));
  CHECK(scheduler->lr(5, 10, 1e-3) == 5e-4);
}

TEST_CASE("a state that is not a plateau's is refused", "[scheduler]") {
  const auto scheduler = test::load<Scheduler>("reduce_on_plateau");
  scheduler->on_evaluation(1);
  const auto state = scheduler->state_dict();
  for (const auto& [key, value] : state) {
    auto missing = state, broken = state, more = state;
    missing.erase(key);
    broken[key] = torch::tensor(-0.5, torch::kDouble);
    more["nobody"] = torch::tensor(1.0, torch::kDouble);
    if (key != "best") CHECK_THROWS_AS(scheduler->load_state_dict(missing), InputError);
    if (key != "best") CHECK_THROWS_AS(scheduler->load_state_dict(broken), InputError);
    CHECK_THROWS_AS(scheduler->load_state_dict(more), InputError);
  }
}

TEST_CASE("schedulers that do not depend on evaluations are pure functions of the step", "[scheduler]") {
  for (const std::string name : {"constant", "cosine", "cosine_with_restarts", "inverse_sqrt", "linear", "one_cycle",
                                 "polynomial", "rex", "wsd"}) {
    INFO(name);
    const auto scheduler = test::load<Scheduler>(name);
    const double rate = scheduler->lr(3, 10, 1e-3);
    CHECK(!scheduler->needs_evaluations());
    scheduler->on_evaluation(100);
    CHECK(scheduler->lr(3, 10, 1e-3) == rate);
    CHECK(scheduler->state_dict().empty());
    CHECK_NOTHROW(scheduler->load_state_dict({}));
    CHECK_THROWS_AS(scheduler->load_state_dict({{"bad", torch::tensor(1.0, torch::kDouble)}}), InputError);
  }
}

TEST_CASE("options out of range are rejected", "[scheduler]") {
  for (const auto& [name, toml] :
       std::vector<std::pair<std::string, std::string>>{{"cosine", "min_lr = 1e-5\nmin_lr_ratio = 0.1"},
                                                        {"linear", "min_lr_ratio = 1.5"},
                                                        {"cosine_with_restarts", "num_cycles = 0"},
                                                        {"one_cycle", "pct_start = 0"},
                                                        {"one_cycle", "three_phase = true\npct_start = 0.6"},
                                                        {"one_cycle", "anneal_strategy = \"square\""},
                                                        {"rex", "min_lr = -1"},
                                                        {"reduce_on_plateau", "factor = 1"},
                                                        {"reduce_on_plateau", "threshold_mode = \"relative\""}}) {
    INFO(name << " " << toml);
    CHECK_THROWS_AS(test::load<Scheduler>(name, toml), ConfigError);
  }
}
