// Shows for the training loop: K micro-batches equal one large batch, and packed examples equal separate ones, up to
// rounding in fp64; the same seed gives a bit-identical adapter; learning rates come from the scheduler; evaluation
// does not affect training; a step without targets, divergence, and gradients outside the adapter stop the run.
#include <torch/nn/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "peft/adapters/hf_format.h"
#include "peft/adapters/training_hooks.h"
#include "peft/base/error.h"
#include "peft/planning/memory_estimate.h"
#include "peft/train/train.h"
#include "plugins/load.h"
#include "selfcheck/tiny_model.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;
using torch::Tensor;

namespace {

/// Examples of unequal lengths, the first tokens of each masked, so that batches differ in their number of target
/// tokens.
Dataset test_data(std::size_t count, bool masked = false) {
  auto generator = at::detail::createCPUGenerator(3);
  Dataset data;
  data.files = {"data.jsonl"};
  for (std::size_t i = 0; i < count; ++i) {
    const auto tokens = static_cast<int64_t>(4 + 3 * i % 11), prompt = static_cast<int64_t>(1 + i % 3);
    const Tensor ids = torch::randint(40, {tokens}, generator, torch::kLong);
    Example example{{ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + tokens}, {}};
    example.labels = example.ids;
    example.line = static_cast<int64_t>(i + 1);
    std::fill(example.labels.begin(), masked ? example.labels.end() : example.labels.begin() + prompt, ignored_label);
    data.examples.push_back(std::move(example));
  }
  return data;
}

struct Recorder : TrainingCallback {
  void on_step_end(const StepReport& report, TrainingControl& control) override {
    steps.push_back(report);
    control.should_stop |= stop_after > 0 && report.step >= stop_after;
  }
  void on_nonfinite_step(const NonFiniteStep& report, TrainingControl& control) override {
    faults.push_back(report);
    control.should_stop |= report.step == -stop_after;
  }
  void on_evaluate(const EvalReport& report, TrainingControl&) override { evaluations.push_back(report); }
  int64_t stop_after = 1000;  ///< -n: in step n, which is not finite
  std::vector<StepReport> steps;
  std::vector<NonFiniteStep> faults;
  std::vector<EvalReport> evaluations;
};

/// A run of the tree's own plugins on a tiny model.
struct Trainer {
  explicit Trainer(const std::string& adapter_toml = "", const std::string& precision_name = "fp64",
                   const std::string& precision_toml = "")
      : adapter(test::load<Adapter>("lora", "target_modules = \"all-linear\"\n" + adapter_toml)),
        precision(test::load<Precision>(precision_name, precision_toml)),
        model(test::tiny_model(test::tiny_config(), precision->base_dtype())) {
    options.max_steps = 3;
    options.log_every = 1;
    torch::manual_seed(5);
    adapter->attach(*model, precision->adapter_dtype());
    for (ParamGroup& group : adapter->groups(*model)) optimizer->add_param_group(std::move(group));
  }
  TrainingResult run() {
    TrainingSession all{.model = *model,
                        .optimizer = *optimizer,
                        .scheduler = *scheduler,
                        .clipping = *clipping,
                        .precision = *precision,
                        .objective = *objective,
                        .adapters = hooked_adapters,
                        .data = data,
                        .eval_data = eval_data ? &*eval_data : nullptr,
                        .packing = packing,
                        .max_length = 64,
                        .options = options,
                        .memory = memory,
                        .callbacks = callbacks,
                        .save =
                            [this](const Snapshot& snapshot) {
                              saved.push_back(snapshot.step);
                              snapshots.push_back(snapshot);
                            },
                        .resume = from ? &*from : nullptr};
    return train(all);
  }
  std::vector<Adapter*> hooked_adapters;
  std::unique_ptr<Adapter> adapter;
  std::unique_ptr<Precision> precision;
  std::shared_ptr<CausalLm> model;
  std::unique_ptr<Optimizer> optimizer = test::load<Optimizer>("adamw", "lr = 1e-2");
  std::unique_ptr<Scheduler> scheduler = test::load<Scheduler>("linear");
  std::unique_ptr<Objective> objective = test::load<Objective>("sft");
  std::unique_ptr<GradientClipping> clipping = test::load<GradientClipping>("norm", "max_norm = 0.5");
  Dataset data = test_data(12);
  std::optional<Dataset> eval_data;
  bool packing = false;
  TrainingOptions options;
  MemoryMeter memory{torch::kCPU};
  Recorder recorder;
  std::vector<TrainingCallback*> callbacks{&recorder};
  std::vector<int64_t> saved;
  std::vector<Snapshot> snapshots;
  std::optional<RunState> from;  ///< a snapshot's states
};

double difference(const CausalLm& a, const CausalLm& b) {
  const NamedTensors left = a.trainable(), right = b.trainable();
  REQUIRE(left.size() == right.size());
  double largest = 0;
  for (std::size_t i = 0; i < left.size(); ++i)
    largest = std::max(largest, (left[i].second - right[i].second).abs().max().item<double>());
  return largest;
}

}  // namespace

TEST_CASE("micro-batches add up to one large batch") {
  Trainer complete;
  complete.options.batch_size = 12;
  complete.run();
  CHECK(difference(*complete.model, *Trainer().model) > 1e-3);  // it did learn
  for (const int64_t size : {1, 3, 5}) {
    Trainer parts;
    parts.options.batch_size = size;
    parts.options.gradient_accumulation_steps = (12 + size - 1) / size;
    parts.run();
    CHECK(difference(*complete.model, *parts.model) < 1e-12);
    for (std::size_t i = 0; i < complete.recorder.steps.size(); ++i) {
      CHECK(parts.recorder.steps[i].loss == Approx(complete.recorder.steps[i].loss).epsilon(1e-12));
      CHECK(parts.recorder.steps[i].num_target_tokens == complete.recorder.steps[i].num_target_tokens);
    }
  }
}

TEST_CASE("recomputed activations equal saved ones, with dropout, too") {
  for (const std::string options : {"", "lora_dropout = 0.3"}) {
    INFO(options);
    Trainer saved(options), selective(options), full(options), mixed(options);
    const auto layers = saved.model->checkpointing().size();
    REQUIRE(layers >= 2);
    selective.model->set_checkpointing(
        std::vector<ActivationCheckpointing>(layers, ActivationCheckpointing::selective));
    full.model->set_checkpointing(std::vector<ActivationCheckpointing>(layers, ActivationCheckpointing::full));
    auto different = std::vector<ActivationCheckpointing>(layers, ActivationCheckpointing::none);
    different.front() = ActivationCheckpointing::full;
    different.back() = ActivationCheckpointing::selective;
    mixed.model->set_checkpointing(different);
    torch::manual_seed(7);
    saved.run();
    for (Trainer* trainer : {&selective, &full, &mixed}) {
      torch::manual_seed(7);
      trainer->run();
      CHECK(difference(*saved.model, *trainer->model) == 0);
      for (std::size_t i = 0; i < saved.recorder.steps.size(); ++i)
        CHECK(trainer->recorder.steps[i].loss == saved.recorder.steps[i].loss);
    }
  }
}

TEST_CASE("a budget recomputes as little as needed, and reports a run that exceeds it") {
  Trainer trainer;
  const auto total = [&] { return estimate_memory(*trainer.model, *trainer.optimizer, {4096, 4096, 1}).total(); };
  const auto arrange = [&](uint64_t budget) {
    choose_activation_checkpointing(*trainer.model, *trainer.optimizer, {4096, 4096, 1}, {}, {.budget = budget});
    return trainer.model->checkpointing();
  };
  const auto layers = trainer.model->checkpointing().size();
  const uint64_t all = total();
  CHECK((arrange(all) == std::vector<ActivationCheckpointing>(layers, ActivationCheckpointing::none)));
  const auto less = arrange(all - 1);
  CHECK((less.front() == ActivationCheckpointing::selective));
  CHECK(total() < all);
  trainer.model->set_checkpointing(std::vector<ActivationCheckpointing>(layers, ActivationCheckpointing::full));
  const uint64_t least = total();
  CHECK((arrange(least) == std::vector<ActivationCheckpointing>(layers, ActivationCheckpointing::full)));
  CHECK(has(message_of<ResourceError>([&] { arrange(least - 1); }), "even with all layers recomputed"));
}

TEST_CASE("packed examples train as separate ones do") {
  Trainer separate, packed;
  separate.options.batch_size = 12;
  packed.options.batch_size = 4;  // 4 · 64 tokens hold all twelve examples
  packed.packing = true;
  separate.run();
  packed.run();
  CHECK(packed.recorder.steps.front().tokens == separate.recorder.steps.front().tokens);
  CHECK(difference(*separate.model, *packed.model) < 1e-12);

  // And each example's loss is its own, independent of the others.
  const CausalLm& model = *separate.model;
  std::vector<std::size_t> all(12);
  double sum = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Batch one = make_batch(separate.data, {all[i] = i});
    sum += Pass(model, one).cross_entropy_sum().item<double>();
  }
  const Batch batch = make_batch(separate.data, all);
  const double together = Pass(model, batch).cross_entropy_sum().item<double>();
  CHECK(together == Approx(sum).epsilon(1e-12));
}

TEST_CASE("the same seed gives the same adapter, another seed another") {
  Trainer first("lora_dropout = 0.2"), again("lora_dropout = 0.2"), other("lora_dropout = 0.2");
  for (Trainer* trainer : {&first, &again, &other}) {
    trainer->options.seed = trainer == &other ? 8 : 7;
    torch::manual_seed(9);  // dropout's
    trainer->run();
  }
  CHECK(difference(*first.model, *again.model) == 0);
  CHECK(difference(*first.model, *other.model) > 0);
}

TEST_CASE("learning rates follow the schedule, steps and epochs are counted, and snapshots are requested") {
  Trainer trainer;
  trainer.options.max_steps.reset();
  trainer.options.epochs = 1.5;
  trainer.options.batch_size = 4;
  trainer.options.gradient_accumulation_steps = 2;  // 3 micro-batches an epoch: 2 steps, of 2 and of 1
  trainer.options.save_every = 2;
  const TrainingResult result = trainer.run();
  const auto& steps = trainer.recorder.steps;
  REQUIRE(steps.size() == 3);
  CHECK(result.steps == 3);
  CHECK(result.skipped == 0);
  CHECK(result.base_hash == base_hash(*trainer.model));
  for (std::size_t i = 0; i < steps.size(); ++i)
    CHECK(steps[i].lr == Approx(1e-2 * (3.0 - static_cast<double>(i)) / 3).epsilon(1e-12));
  CHECK(steps[0].epoch == Approx(2.0 / 3));
  CHECK(steps[1].epoch == Approx(1.0));
  CHECK(trainer.saved == std::vector<int64_t>{2, 3});  // and at the end
}

TEST_CASE("without save_every, time requests temporary snapshots, which change nothing") {
  Trainer timed, without, by_steps;
  timed.options.save_every_minutes = by_steps.options.save_every_minutes = 1e-9;
  without.options.save_every_minutes = 0;
  by_steps.options.save_every = 2;
  timed.run(), without.run(), by_steps.run();
  CHECK(timed.saved == std::vector<int64_t>{1, 2});  // the adapter follows the last step
  CHECK(without.saved.empty());
  CHECK(by_steps.saved == std::vector<int64_t>{2, 3});
  for (const Snapshot& snapshot : timed.snapshots) CHECK(snapshot.temporary);
  for (const Snapshot& snapshot : by_steps.snapshots) CHECK_FALSE(snapshot.temporary);
  CHECK(difference(*timed.model, *without.model) == 0);
}

TEST_CASE("evaluation is the mean over target tokens and does not affect training") {
  Trainer with("lora_dropout = 0.3"), without("lora_dropout = 0.3");
  with.eval_data = test_data(5);
  with.options.eval_every = 1;
  for (Trainer* trainer : {&with, &without}) {
    torch::manual_seed(1);
    trainer->run();
  }
  CHECK(difference(*with.model, *without.model) == 0);
  REQUIRE(with.recorder.evaluations.size() == 3);
  with.model->eval();
  double sum = 0;
  int64_t num_target_tokens = 0;
  for (std::size_t i = 0; i < 5; ++i) {
    const Batch one = make_batch(*with.eval_data, {i});
    sum += Pass(*with.model, one).cross_entropy_sum().item<double>();
    num_target_tokens += one.num_target_tokens();
  }
  CHECK(with.recorder.evaluations.back().loss == Approx(sum / static_cast<double>(num_target_tokens)).epsilon(1e-12));
}

TEST_CASE("fp16: a step whose gradients overflow is skipped and counted, and training continues") {
  Trainer trainer("", "fp16", "init_scale = 16777216.0");
  trainer.options.max_steps = 12;
  const TrainingResult result = trainer.run();
  CHECK(result.skipped > 0);
  CHECK(result.skipped < 12);
  CHECK(result.steps == 12);
  CHECK(trainer.recorder.steps.back().loss < trainer.recorder.steps.front().loss);
  for (const auto& [name, tensor] : trainer.model->trainable()) CHECK(at::isfinite(tensor).all().item<bool>());
}

TEST_CASE("an adapter's hooks run in each step and may add to the loss") {
  /// Writes down when it is called; its part of the loss is a hundredth of the squares of what trains.
  struct Diary : Adapter, HfFormat, TrainingHooks {
    explicit Diary(const Model& trained) : HfFormat(this), trained_(trained) {}
    const HfFormat& hf_format() const noexcept override { return *this; }
    TrainingHooks* training_hooks() noexcept override { return this; }
    void do_attach(Model&, torch::Dtype) override {}
    nlohmann::ordered_json do_config(const Model&) const override { return {}; }
    Tensor do_auxiliary_loss() const override {
      Tensor sum = torch::zeros({}, torch::kDouble);
      for (const auto& [name, tensor] : trained_.trainable()) sum = sum + 0.01 * tensor.square().sum();
      added.push_back(sum.item<double>());
      return sum;
    }
    void do_after_backward(const TrainStep& at) override { write("gradients", at); }
    void do_after_step(const TrainStep& at) override { write("stepped", at); }
    void write(const std::string& what, const TrainStep& at) {
      CHECK(trained_.trainable().front().second.grad().defined());
      lines.push_back(what + " " + std::to_string(at.step) + "/" + std::to_string(at.total_steps));
    }
    const Model& trained_;
    mutable std::vector<double> added;
    StringList lines;
  };
  Trainer plain, with;
  plain.run();
  Diary diary(*with.model);
  with.hooked_adapters = {&diary};
  with.run();
  CHECK(diary.lines ==
        StringList{"gradients 1/3", "stepped 1/3", "gradients 2/3", "stepped 2/3", "gradients 3/3", "stepped 3/3"});
  REQUIRE(diary.added.size() == 3);
  CHECK(diary.added[0] > 1e-3);
  CHECK(std::abs(with.recorder.steps[0].loss - plain.recorder.steps[0].loss - diary.added[0]) < 1e-12);
  CHECK(difference(*with.model, *plain.model) > 1e-4);  // its gradients count
}

TEST_CASE("a schedule that depends on evaluations gets each of them, and is rejected without them") {
  Trainer trainer;
  trainer.scheduler = test::load<Scheduler>("reduce_on_plateau", "factor = 0.5\npatience = 0\nthreshold = 10.0");
  CHECK(has(message_of<ConfigError>([&] { trainer.run(); }), "set data.eval or data.eval_split"));
  trainer.eval_data = test_data(5);
  CHECK(has(message_of<ConfigError>([&] { trainer.run(); }), "set training.eval_every"));
  trainer.options.eval_every = 2;
  trainer.options.max_steps = 7;
  trainer.run();
  // Nothing is ever better than the first by more than it: the evaluations after steps 4 and 6 lower the rate.
  std::vector<double> rates;
  for (const StepReport& report : trainer.recorder.steps) rates.push_back(report.lr);
  CHECK(rates == std::vector<double>{1e-2, 1e-2, 1e-2, 1e-2, 5e-3, 5e-3, 2.5e-3});
}

TEST_CASE("evaluation and checkpoints use the optimizer's saved values, and training continues with the trained ones") {
  Trainer plain, watched;
  for (Trainer* trainer : {&plain, &watched}) {
    trainer->optimizer = test::load<Optimizer>("schedule_free_adamw", "lr = 1e-2");
    for (ParamGroup& group : trainer->adapter->groups(*trainer->model))
      trainer->optimizer->add_param_group(std::move(group));
    trainer->options.max_steps = 6;
  }
  watched.eval_data = test_data(5);
  watched.options.eval_every = watched.options.save_every = 2;
  plain.run();
  watched.run();
  CHECK(difference(*plain.model, *watched.model) == 0);
  const double loss = evaluate(*watched.model, *watched.precision, *watched.objective, *watched.eval_data, 4).loss;
  CHECK(watched.recorder.evaluations.back().loss == loss);
  watched.optimizer->train();
  CHECK(difference(*plain.model, *watched.model) > 1e-4);
  CHECK(evaluate(*watched.model, *watched.precision, *watched.objective, *watched.eval_data, 4).loss != loss);
}

namespace {

/// Does not change parameters, and sums up the gradients of sampled labels.
struct Surveyor : Optimizer {
  void do_step() override {
    for (const Tensor& parameter : parameters_of(groups())) CHECK(parameter.grad().defined());
  }
  StateDict do_state_dict() const override { return {}; }
  void do_load_state_dict(const StateDict&) override {}
  uint64_t do_state_bytes(const Tensor&) const override { return 0; }
  double default_lr() const override { return 0; }
  bool do_needs_sampled_label_gradients() const override { return true; }
  void do_on_sampled_label_gradients(int64_t tokens) override {
    std::vector<Tensor> flat;
    for (const Tensor& gradient : gradients(parameters_of(groups()))) flat.push_back(gradient.flatten());
    const Tensor gradient = torch::cat(flat);
    sum = sum.defined() ? sum + gradient : gradient;
    lengths += gradient.norm().item<double>();
    counts.push_back(tokens);
  }
  Tensor sum;
  double lengths = 0;
  std::vector<int64_t> counts;
};

}  // namespace

TEST_CASE("sampled labels are the model's own: their gradients have mean zero and do not change the step's") {
  Trainer plain, trainer;
  for (Trainer* each : {&plain, &trainer}) {
    // Away from B = 0, so that all gradients count.
    for (const auto& [name, tensor] : each->model->trainable()) {
      const torch::NoGradGuard guard;
      Tensor(tensor).normal_(0, 0.3, at::detail::createCPUGenerator(4));
    }
    each->options.max_steps = 300;
  }
  auto surveyor = std::make_unique<Surveyor>();
  Surveyor& seen = *surveyor;
  trainer.optimizer = std::move(surveyor);
  for (ParamGroup& group : trainer.adapter->groups(*trainer.model))
    trainer.optimizer->add_param_group(std::move(group));
  trainer.run();
  plain.options.max_steps = 1;
  plain.run();
  REQUIRE(seen.counts.size() == 300);
  CHECK(seen.counts.front() == trainer.recorder.steps.front().num_target_tokens);
  CHECK(seen.lengths > 0);
  CHECK(seen.sum.norm().item<double>() < 0.15 * seen.lengths);
  CHECK(trainer.recorder.steps.front().grad_norm == plain.recorder.steps.front().grad_norm);
  CHECK(trainer.recorder.steps.front().loss == plain.recorder.steps.front().loss);
}

TEST_CASE("a step without target tokens is refused") {
  Trainer trainer;
  trainer.data = test_data(12, /*masked=*/true);
  CHECK(has(message_of<InputError>([&] { trainer.run(); }), "step 1: all labels are masked"));
}

TEST_CASE("a stopped run finishes its step, takes a snapshot and ends") {
  Trainer trainer;
  trainer.recorder.stop_after = 2;
  const TrainingResult result = trainer.run();
  CHECK(result.stopped);
  CHECK(result.steps == 2);
  CHECK(trainer.saved == std::vector<int64_t>{2});
  Trainer ending;
  ending.recorder.stop_after = 3;  // asked in the last step it has simply ended
  CHECK_FALSE(ending.run().stopped);
}

namespace {

/// Spoils one step: the loss, the gradients before clipping, or what the step left.
struct Spoiler : Adapter, HfFormat, TrainingHooks {
  enum class What { loss, gradient, parameter };
  Spoiler(const Model& trained, What what, int64_t when)
      : HfFormat(this), trained_(trained), what_(what), when_(when) {}
  const HfFormat& hf_format() const noexcept override { return *this; }
  TrainingHooks* training_hooks() noexcept override { return this; }
  void do_attach(Model&, torch::Dtype) override {}
  nlohmann::ordered_json do_config(const Model&) const override { return {}; }
  Tensor do_auxiliary_loss() const override {
    if (++losses_ != when_ || what_ != What::loss) return {};
    return trained_.trainable().front().second.sum() * std::numeric_limits<double>::infinity();
  }
  void do_after_backward(const TrainStep& at) override {
    if (at.step == when_ && what_ == What::gradient) first().mutable_grad().fill_(std::nan(""));
  }
  void do_after_step(const TrainStep& at) override {
    const torch::NoGradGuard guard;
    if (at.step == when_ && what_ == What::parameter) first().fill_(std::nan(""));
  }

 private:
  Tensor first() const { return trained_.trainable().front().second; }
  const Model& trained_;
  What what_;
  int64_t when_;
  mutable int64_t losses_ = 0;
};

}  // namespace

TEST_CASE("a non-finite step is skipped, counted and reported with its examples, and gives no checkpoint") {
  for (const auto what : {Spoiler::What::loss, Spoiler::What::gradient}) {
    Trainer trainer;
    Spoiler spoiler(*trainer.model, what, 2);
    trainer.hooked_adapters = {&spoiler};
    trainer.options.max_steps = 4;
    trainer.options.save_every = 2;
    trainer.options.max_nonfinite_steps = 1;
    const TrainingResult result = trainer.run();
    CHECK(result.steps == 4);
    CHECK(result.nonfinite == 1);
    CHECK(std::isfinite(result.loss));
    CHECK(trainer.recorder.steps.size() == 3);
    REQUIRE(trainer.recorder.faults.size() == 1);
    const NonFiniteStep& fault = trainer.recorder.faults.front();
    CHECK(fault.step == 2);
    CHECK(has(fault.what, what == Spoiler::What::loss ? "the loss with the adapter's auxiliary loss is "
                                                      : "the gradient norm is "));
    REQUIRE(fault.examples.size() == 4);  // a batch
    CHECK(fault.examples.front().starts_with("data.jsonl:"));
    CHECK(trainer.saved == std::vector<int64_t>{3, 4});  // that of step 2 waits for a finite step
  }
}

TEST_CASE("a run stopped in a non-finite step still takes the checkpoint that is due, and not as the best one") {
  const auto go = [](int64_t stop, const std::optional<RunState>& from, Trainer& trainer) {
    Spoiler spoiler(*trainer.model, Spoiler::What::gradient, 2);
    trainer.hooked_adapters = {&spoiler};
    trainer.options.max_steps = 4;
    trainer.options.save_every = trainer.options.eval_every = 2;
    trainer.options.max_nonfinite_steps = 1;
    trainer.eval_data = test_data(4);
    trainer.recorder.stop_after = stop;
    trainer.from = from;
    return trainer.run();
  };
  Trainer complete, interrupted;
  const TrainingResult uninterrupted = go(1000, {}, complete);
  CHECK(complete.saved == std::vector<int64_t>{3, 4});
  REQUIRE(uninterrupted.best);
  CHECK(uninterrupted.best->step == 4);    // 3 was not evaluated
  CHECK(go(-2, {}, interrupted).stopped);  // in the non-finite step
  CHECK(interrupted.saved == std::vector<int64_t>{2});
  CHECK_FALSE(interrupted.snapshots.front().best);
  const RunState states = interrupted.snapshots.front().states;
  const TrainingResult resumed = go(1000, states, interrupted);
  CHECK(interrupted.from->empty());  // the components have what they need
  CHECK(interrupted.saved == std::vector<int64_t>{2, 3, 4});
  CHECK(resumed.best->step == 4);
}

TEST_CASE("one non-finite step more than allowed ends the run") {
  Trainer trainer;
  Spoiler spoiler(*trainer.model, Spoiler::What::gradient, 2);
  trainer.hooked_adapters = {&spoiler};
  trainer.options.max_nonfinite_steps = 0;
  const std::string message = message_of<DivergedError>([&] { trainer.run(); });
  CHECK(has(message, "step 2: the gradient norm is "));
  CHECK(has(message, ", on data.jsonl:"));
  CHECK(has(message, "training.max_nonfinite_steps is 0"));
  CHECK(trainer.recorder.faults.size() == 1);
}

TEST_CASE("a diverged run throws and takes no snapshot") {
  SECTION("a learning rate that is far too high: the loss is never finite again") {
    Trainer trainer;
    trainer.optimizer = test::load<Optimizer>("adamw", "");
    for (ParamGroup& group : trainer.adapter->groups(*trainer.model)) {
      group.initial_lr = 1e200;
      trainer.optimizer->add_param_group(std::move(group));
    }
    trainer.options.save_every = 3;
    CHECK(has(message_of<DivergedError>([&] { trainer.run(); }), "after step 3 the loss of data.jsonl:"));
    CHECK(trainer.recorder.faults.size() == 2);
    CHECK(trainer.saved.empty());
  }
  SECTION("a parameter that is NaN, which the next step reports") {
    Trainer trainer;
    Spoiler spoiler(*trainer.model, Spoiler::What::parameter, 1);
    trainer.hooked_adapters = {&spoiler};
    CHECK(has(message_of<DivergedError>([&] { trainer.run(); }), "earlier steps left NaN or infinity in 'model."));
  }
  SECTION("or none, since the run ends") {
    Trainer trainer;
    Spoiler spoiler(*trainer.model, Spoiler::What::parameter, 3);
    trainer.hooked_adapters = {&spoiler};
    CHECK(has(message_of<DivergedError>([&] { trainer.run(); }), "step 3 left NaN or infinity in 'model."));
  }
}

TEST_CASE("a run without trainable parameters is refused") {
  Trainer trainer;
  trainer.model = test::tiny_model(test::tiny_config(), torch::kDouble);
  CHECK(has(message_of<ConfigError>([&] { trainer.run(); }), "no trainable parameters"));
}

namespace {

/// Has a parameter that nothing is computed with.
struct Idle : AdapterLayer {
  Idle() { register_parameter("idle", torch::zeros({2}, torch::kDouble)); }
  Tensor forward(const Tensor& x, const Next& next) override { return next(x); }
};

/// Writes into the base while the run is on.
struct Vandal : TrainingCallback {
  explicit Vandal(const Model& model) : model_(model) {}
  void on_step_end(const StepReport&, TrainingControl&) override {
    const torch::NoGradGuard guard;
    Tensor(model_.embedding().dense()).select(0, 39).add_(1e-9);
  }
  const Model& model_;
};

}  // namespace

TEST_CASE("a gradient outside the adapter or a missing one stops the run") {
  SECTION("the optimizer misses an adapter's tensor") {
    Trainer trainer;
    trainer.model->lm_head().attach("idle", std::make_shared<Idle>());
    CHECK(has(message_of<PluginError>([&] { trainer.run(); }), "the optimizer does not train 'lm_head.idle'"));
  }
  SECTION("an adapter's tensor gets no gradient") {
    Trainer trainer;
    trainer.model->lm_head().attach("idle", std::make_shared<Idle>());
    trainer.optimizer = test::load<Optimizer>("adamw", "lr = 1e-2");
    ParamGroup all;
    all.parameters = trainer.model->trainable();
    trainer.optimizer->add_param_group(std::move(all));
    CHECK(has(message_of<PluginError>([&] { trainer.run(); }), "adapter tensor 'lm_head.idle' got no gradient"));
  }
  SECTION("the optimizer holds what is not the adapter's") {
    Trainer trainer;
    ParamGroup group;
    group.name = "stray";
    group.parameters.emplace_back("stray", torch::zeros({2}, torch::kDouble).requires_grad_());
    trainer.optimizer->add_param_group(std::move(group));
    CHECK(has(message_of<std::logic_error>([&] { trainer.run(); }), "not the adapter's"));
  }
  SECTION("a base tensor asks for a gradient") {
    Trainer trainer;
    Tensor(trainer.model->find("model.layers.1.mlp.up_proj")->dense()).requires_grad_();
    const std::string message = message_of<std::logic_error>([&] { trainer.run(); });
    CHECK(has(message, "base tensor 'model.layers.1.mlp.up_proj.weight' got a gradient or requires one"));
  }
  SECTION("the base changes") {
    Trainer trainer;
    Vandal vandal(*trainer.model);
    trainer.callbacks.push_back(&vandal);
    CHECK(has(message_of<std::logic_error>([&] { trainer.run(); }), "the frozen base changed"));
  }
}
