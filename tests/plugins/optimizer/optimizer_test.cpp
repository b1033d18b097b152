// Shows for every optimizer: a run resumed from its state is bit-identical to the uninterrupted run; each param group
// has its own learning rate and weight decay; a parameter without a gradient does not change; the state has the size
// that the memory plan uses and does not grow; a state of other parameters is refused. tests/parity/test_optimizers.py
// compares the steps with the reference implementations.
#include <torch/types.h>
#include <torch/utils.h>

#include <filesystem>

#include "peft/base/error.h"
#include "peft/runtime/memory.h"
#include "peft/runtime/state_dict_file.h"
#include "peft/train/optimizer.h"
#include "plugins/load.h"
#include "support/test.h"

using namespace peft;
using torch::Tensor;

namespace {

[[maybe_unused]] const bool allocator_installed = (install_cpu_allocator(), true);  // before the first tensor

struct Row {
  std::string name, toml;
};
const std::vector<Row> rows = {{"adamw", ""},
                               {"adamw_8bit", ""},
                               {"adafactor", ""},
                               {"adafactor", "beta1 = 0.9\nscale_parameter = true"},
                               {"galore", "rank = 8\nupdate_proj_gap = 4"},
                               {"lamb", ""},
                               {"lion", ""},
                               {"muon", ""},
                               {"schedule_free_adamw", ""},
                               {"sgd", ""},
                               {"sgd", "momentum = 0.9"},
                               {"sophia", "update_period = 3"}};

/// An optimizer with two groups: a matrix and a vector; a matrix that lacks gradients now and then, and one that never
/// has any.
struct Bench {
  explicit Bench(const Row& row, const std::string& more = "")
      : optimizer(test::load<Optimizer>(row.name, "lr = 0.01\n" + row.toml + more)) {
    torch::manual_seed(1);
    first.name = "first";
    first.parameters = {{"a", leaf({70, 80})}, {"b", leaf({6})}};
    second.name = "second";
    second.initial_lr = 0.003;
    second.weight_decay = 0.1;
    second.parameters = {{"c", leaf({12, 40})}, {"idle", leaf({5, 5})}};
  }
  static Tensor leaf(at::IntArrayRef shape) { return torch::randn(shape).requires_grad_(); }
  void add_both() {
    optimizer->add_param_group(first);
    optimizer->add_param_group(second);
  }
  std::vector<Tensor> all() const {
    std::vector<Tensor> all;
    for (const ParamGroup* group : {&first, &second})
      for (const auto& [name, tensor] : group->parameters) all.push_back(tensor);
    return all;
  }
  /// Gradients of `step`, the same in every bench.
  void set_gradients(int64_t step, int64_t salt) {
    auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(100 * step + salt));
    for (const ParamGroup* group : {&first, &second})
      for (const auto& [name, tensor] : group->parameters) {
        const Tensor gradient = torch::randn(tensor.sizes(), generator);
        if (name != "idle" && !(name == "c" && step % 3 == 0)) Tensor(tensor).mutable_grad() = gradient;
      }
  }
  void step(int64_t number) {
    if (optimizer->needs_sampled_label_gradients()) {
      set_gradients(number, 7);
      optimizer->on_sampled_label_gradients(30);
      optimizer->zero_grad();
    }
    set_gradients(number, 0);
    optimizer->step();
    optimizer->zero_grad();
  }
  ParamGroup first, second;
  std::unique_ptr<Optimizer> optimizer;
};

void check_equal(const std::vector<Tensor>& left, const std::vector<Tensor>& right) {
  REQUIRE(left.size() == right.size());
  for (std::size_t i = 0; i < left.size(); ++i) CHECK(torch::equal(left[i], right[i]));
}

StateDict through_file(const StateDict& state) {
  const auto path = std::filesystem::temp_directory_path() / ("peft_optimizer_" + std::to_string(::getpid()));
  write_state(path.string(), state, {});
  StateDict read = read_state(path.string());
  std::filesystem::remove(path);
  return read;
}

}  // namespace

TEST_CASE("sophia estimates the curvature once per interval, also if the step is repeated", "[optimizer]") {
  const Row row{"sophia", "update_period = 3"};
  Bench tried(row), after(row);
  for (Bench* bench : {&tried, &after}) bench->add_both();
  for (int64_t step = 0; step < 3; ++step) tried.step(step);
  REQUIRE(tried.optimizer->needs_sampled_label_gradients());
  tried.set_gradients(3, 7);
  tried.optimizer->on_sampled_label_gradients(30);
  tried.optimizer->zero_grad();
  CHECK_FALSE(tried.optimizer->needs_sampled_label_gradients());  // the step was not taken
  after.optimizer->load_state_dict(through_file(tried.optimizer->state_dict()));
  CHECK_FALSE(after.optimizer->needs_sampled_label_gradients());
  tried.step(3);
  CHECK_FALSE(tried.optimizer->needs_sampled_label_gradients());
  for (int64_t step = 4; step < 6; ++step) tried.step(step);
  CHECK(tried.optimizer->needs_sampled_label_gradients());
}

TEST_CASE("a run resumed from its state equals the uninterrupted run", "[optimizer]") {
  for (const Row& row : rows) {
    INFO(row.name << " " << row.toml);
    Bench uninterrupted(row), before(row), after(row);
    for (Bench* bench : {&uninterrupted, &before, &after}) bench->add_both();
    const std::vector<Tensor> idle = {uninterrupted.second.parameters[1].second.detach().clone()};
    for (int64_t step = 0; step < 12; ++step) uninterrupted.step(step);
    for (int64_t step = 0; step < 5; ++step) before.step(step);
    before.optimizer->eval();  // as when the loop saves
    const StateDict state = through_file(before.optimizer->state_dict());
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < before.all().size(); ++i) after.all()[i].copy_(before.all()[i]);
    after.optimizer->load_state_dict(state);
    for (int64_t step = 5; step < 12; ++step) after.step(step);
    check_equal(uninterrupted.all(), after.all());
    // And saving does not change the run.
    before.optimizer->train();
    for (int64_t step = 5; step < 12; ++step) before.step(step);
    check_equal(uninterrupted.all(), before.all());
    check_equal(idle, {uninterrupted.second.parameters[1].second});
    CHECK(!torch::equal(uninterrupted.all()[0], Bench(row).all()[0]));
  }
}

TEST_CASE("each param group has its own learning rate and weight decay", "[optimizer]") {
  for (const Row& row : rows) {
    INFO(row.name << " " << row.toml);
    Bench both(row), alone(row, "\nweight_decay = 0.1"), still(row);
    both.add_both();
    alone.second.initial_lr = 0.003;
    alone.second.weight_decay.reset();  // the option's
    alone.optimizer->add_param_group(alone.second);
    still.second.initial_lr = 0;
    still.add_both();
    const Tensor start = still.second.parameters[0].second.detach().clone();
    for (int64_t step = 0; step < 8; ++step)
      for (Bench* bench : {&both, &alone, &still}) bench->step(step);
    CHECK(torch::equal(both.second.parameters[0].second, alone.second.parameters[0].second));
    CHECK(torch::equal(still.second.parameters[0].second, start));
    CHECK(torch::equal(still.first.parameters[0].second, both.first.parameters[0].second));
  }
}

TEST_CASE("the state has the size that state_bytes() returns, and does not grow", "[optimizer]") {
  for (const Row& row : rows) {
    INFO(row.name << " " << row.toml);
    Bench bench(row);
    bench.second.parameters.pop_back();  // what never has a gradient may cost nothing
    bench.add_both();
    uint64_t promised = 0;
    for (const Tensor& parameter : bench.all()) promised += bench.optimizer->state_bytes(parameter);
    const auto live = [] { return memory_stats(torch::kCPU).allocated; };
    const uint64_t before = live();
    bench.step(1);
    const uint64_t used = live() - before;
    CHECK(used >= promised);
    CHECK(used <= promised + 3 * 64);  // counters
    const uint64_t after = live();
    for (int64_t step = 2; step < 12; ++step) bench.step(step);
    bench.optimizer->eval();
    bench.optimizer->train();
    CHECK(live() == after);
  }
}

TEST_CASE("8-bit state takes a quarter of the bytes of fp32 state", "[optimizer]") {
  const auto optimizer = test::load<Optimizer>("adamw_8bit");
  const Tensor large = torch::zeros({256, 256}), small = torch::zeros({60});
  CHECK(optimizer->state_bytes(large) == 2 * (256 * 256 + 256 * 4));
  CHECK(optimizer->state_bytes(small) == 2 * 60 * 4);
}

TEST_CASE("a state of other parameters is refused", "[optimizer]") {
  for (const Row& row : rows) {
    if (row.name == "sgd" && row.toml.empty()) continue;  // keeps none
    INFO(row.name << " " << row.toml);
    Bench bench(row), other(row);
    bench.add_both();
    bench.step(1);
    const StateDict state = bench.optimizer->state_dict();
    for (const auto& [key, tensor] : state) {
      INFO(key);
      StateDict misshapen = state, unexpected = state;
      misshapen[key] = torch::zeros({2, 3, 4});
      unexpected["nobody." + key] = tensor;
      CHECK_THROWS_AS(bench.optimizer->load_state_dict(misshapen), InputError);
      CHECK_THROWS_AS(bench.optimizer->load_state_dict(unexpected), InputError);
    }
    other.first.parameters = {{"a", Bench::leaf({3, 3})}};
    other.optimizer->add_param_group(other.first);
    CHECK_THROWS_AS(other.optimizer->load_state_dict(state), InputError);
  }
}
