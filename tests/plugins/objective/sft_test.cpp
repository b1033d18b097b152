// Shows for the objective sft: loss and gradients are those of the cross-entropy of all logits at once; the totals of
// micro-batches add up, and so do their losses and gradients; evaluation reports the same loss. An objective from
// outside the tree trains, saves its state and resumes, also from a checkpoint without one; misspelled names are
// recognized.
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <cstdlib>
#include <numeric>

#include "peft/base/error.h"
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

Dataset test_data(std::size_t count = 6) {
  auto generator = at::detail::createCPUGenerator(3);
  Dataset data;
  data.files = {"data.jsonl"};
  for (std::size_t i = 0; i < count; ++i) {
    const auto tokens = static_cast<int64_t>(3 + 4 * i % 9), prompt = static_cast<int64_t>(i % 3);
    const Tensor ids = torch::randint(40, {tokens}, generator, torch::kLong);
    Example example{{ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + tokens}, {}};
    example.labels = example.ids;
    std::fill(example.labels.begin(), example.labels.begin() + prompt, ignored_label);
    data.examples.push_back(std::move(example));
  }
  return data;
}

std::vector<std::size_t> range(std::size_t first, std::size_t last) {
  std::vector<std::size_t> examples(last - first);
  std::iota(examples.begin(), examples.end(), first);
  return examples;
}

/// A tiny fp64 model with a LoRA that is not zero.
struct Adapted {
  std::shared_ptr<CausalLm> model = test::tiny_model(test::tiny_config(), torch::kDouble);
  std::unique_ptr<Adapter> adapter = test::load<Adapter>("lora", "target_modules = \"all-linear\"");
  std::vector<Tensor> parameters;
  Adapted() {
    torch::manual_seed(5);
    adapter->attach(*model, torch::kDouble);
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : model->trainable()) {
      parameters.push_back(tensor);
      Tensor(tensor).add_(0.01 * torch::randn_like(tensor));
    }
  }
};

/// The cross-entropy sum of a batch from all logits at once, example by example.
Tensor plain_sum(const CausalLm& model, const Dataset& data, const std::vector<std::size_t>& examples) {
  Tensor sum = torch::zeros({}, torch::kDouble);
  for (const std::size_t i : examples) {
    const Batch batch = make_batch(data, {i});
    const Tensor logits = model.logits(model.hidden_states(to_packed_tokens(batch, torch::kCPU)));
    const Tensor labels = to_labels(batch, torch::kCPU);
    sum =
        sum + at::cross_entropy_loss(logits.slice(0, 0, -1), labels.slice(0, 1), {}, at::Reduction::Sum, ignored_label);
  }
  return sum;
}

std::vector<Tensor> gradients_of(const Tensor& loss, const std::vector<Tensor>& parameters) {
  return torch::autograd::grad({loss}, parameters);
}

std::unique_ptr<Objective> load_doubled() {
  Plugins plugins({PEFT_FIXTURES});
  Options none;
  return plugins.make<Objective>("doubled", none);
}

/// A short run of one objective.
struct Trainer {
  explicit Trainer(std::unique_ptr<Objective> with, const std::string& optimizer_name = "adamw")
      : objective(std::move(with)), optimizer(test::load<Optimizer>(optimizer_name, "lr = 1e-2")) {
    options.max_steps = 3;
    options.log_every = 1;
    options.save_every = 1;
    for (ParamGroup& group : adapted.adapter->groups(*adapted.model)) optimizer->add_param_group(std::move(group));
  }
  TrainingResult run(RunState* from = nullptr) {
    TrainingSession session{.model = *adapted.model,
                            .optimizer = *optimizer,
                            .scheduler = *scheduler,
                            .clipping = *clipping,
                            .precision = *precision,
                            .objective = *objective,
                            .adapters = {},
                            .data = data,
                            .eval_data = &data,
                            .max_length = 64,
                            .options = options,
                            .memory = memory,
                            .callbacks = {},
                            .save = [this](const Snapshot& snapshot) { snapshots.push_back(snapshot); },
                            .resume = from};
    return train(session);
  }
  Adapted adapted;
  std::unique_ptr<Objective> objective;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Scheduler> scheduler = test::load<Scheduler>("constant");
  std::unique_ptr<GradientClipping> clipping = test::load<GradientClipping>("none");
  std::unique_ptr<Precision> precision = test::load<Precision>("fp64");
  Dataset data = test_data();
  TrainingOptions options;
  MemoryMeter memory{torch::kCPU};
  std::vector<Snapshot> snapshots;
};

}  // namespace

TEST_CASE("loss and gradients are those of all logits at once", "[objective]") {
  const Adapted adapted;
  const auto objective = test::load<Objective>("sft");
  const Dataset data = test_data();
  const auto all = range(0, data.examples.size());
  const Batch batch = make_batch(data, all);
  const Totals totals = objective->totals(batch, false);
  const Tensor expected = plain_sum(*adapted.model, data, all) / totals[0];
  const auto wanted = gradients_of(expected, adapted.parameters);
  const Pass pass(*adapted.model, batch);
  const Tensor loss = objective->loss(pass, totals);
  const auto found = gradients_of(loss, adapted.parameters);
  CHECK(loss.item<double>() == Approx(expected.item<double>()).epsilon(1e-12));
  for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(at::allclose(found[i], wanted[i], 1e-10, 1e-14));
  CHECK(objective->is_likelihood());
  CHECK(objective->state_dict().empty());
}

TEST_CASE("totals, losses and gradients of micro-batches add up", "[objective]") {
  const Adapted adapted;
  const auto objective = test::load<Objective>("sft");
  const Dataset data = test_data();
  const std::size_t count = data.examples.size();
  for (const bool virtual_tokens : {false, true}) {
    Totals sum;
    for (std::size_t i = 0; i < count; ++i) add_totals(sum, objective->totals(make_batch(data, {i}), virtual_tokens));
    CHECK(sum == objective->totals(make_batch(data, range(0, count)), virtual_tokens));
  }
  const Batch complete = make_batch(data, range(0, count));
  const Totals totals = objective->totals(complete, false);
  const Tensor loss = objective->loss(Pass(*adapted.model, complete), totals);
  const auto wanted = gradients_of(loss, adapted.parameters);
  double sum = 0;
  std::vector<Tensor> gradients(wanted.size());
  for (std::size_t first = 0; first < count; first += 2) {
    const Tensor part = objective->loss(Pass(*adapted.model, make_batch(data, range(first, first + 2))), totals);
    sum += part.item<double>();
    const auto of_part = gradients_of(part, adapted.parameters);
    for (std::size_t i = 0; i < wanted.size(); ++i)
      gradients[i] = gradients[i].defined() ? gradients[i] + of_part[i] : of_part[i];
  }
  CHECK(sum == Approx(loss.item<double>()).epsilon(1e-12));
  for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(at::allclose(gradients[i], wanted[i], 1e-10, 1e-14));
}

TEST_CASE("an evaluation reports loss, perplexity and accuracy", "[objective]") {
  const Adapted adapted;
  const auto objective = test::load<Objective>("sft");
  const auto precision = test::load<Precision>("fp64");
  const Dataset data = test_data();
  const auto all = range(0, data.examples.size());
  const double tokens = objective->totals(make_batch(data, all), false)[0];
  for (const int64_t batch_size : {1, 4}) {
    const Evaluation result = evaluate(*adapted.model, *precision, *objective, data, batch_size);
    CHECK(result.loss == Approx(plain_sum(*adapted.model, data, all).item<double>() / tokens).epsilon(1e-12));
    CHECK(result.figure("loss") == result.loss);
    CHECK(result.figure("perplexity") == std::exp(result.loss));
    const double correct = result.figure("accuracy") * tokens;
    CHECK(correct == Approx(std::round(correct)));
    CHECK_THROWS_AS(result.figure("f1"), std::out_of_range);
  }
  Dataset masked = data;
  for (Example& example : masked.examples) std::fill(example.labels.begin(), example.labels.end(), ignored_label);
  CHECK_THROWS_AS(evaluate(*adapted.model, *precision, *objective, masked, 4), InputError);
}

TEST_CASE("a misspelled objective name is an error with a suggestion", "[objective]") {
  CHECK(has(message_of<PluginError>([] { test::load<Objective>("stf"); }),
            "no plugin 'stf' of kind objective; did you mean 'sft'?"));
}

TEST_CASE("an objective from outside the tree trains, and resumes with its state", "[objective]") {
  Trainer doubled(load_doubled()), plain(test::load<Objective>("sft"));
  CHECK(doubled.objective->formats() == StringList{"text"});
  doubled.options.max_steps = plain.options.max_steps = 1;
  CHECK(doubled.run().loss == Approx(2 * plain.run().loss).epsilon(1e-12));
  CHECK(plain.snapshots.back().states.count("objective") == 0);
  REQUIRE(doubled.snapshots.back().states.count("objective") == 1);
  CHECK(doubled.objective->state_dict().at("losses").item<double>() == 1);

  Trainer complete(load_doubled()), before(load_doubled()), after(load_doubled());
  complete.run();
  before.run();
  RunState from = before.snapshots.front().states, older = from;
  Trainer resumed(load_doubled());
  resumed.run(&from);
  CHECK(torch::equal(resumed.objective->state_dict().at("losses"), complete.objective->state_dict().at("losses")));
  older.erase("objective");
  CHECK_NOTHROW(after.run(&older));
}

TEST_CASE("an objective's exceptions are reported with its file, the model's are not", "[objective]") {
  Trainer trainer(load_doubled());
  for (const char* call : {"totals", "loss", "evaluate"}) {
    ::setenv("PEFT_FIXTURE", call, 1);
    CHECK(has(message_of<PluginError>([&] { trainer.run(); }),
              std::string("peft_objective_doubled.so: ") + call + " failed: thrown by the plugin"));
  }
  ::unsetenv("PEFT_FIXTURE");
  const Tensor ids = torch::full({3}, 1000, torch::kLong);  // outside the vocabulary
  const Pass pass(*trainer.adapted.model, {ids, torch::arange(3), {0, 3}}, ids);
  CHECK_THROWS_AS(trainer.objective->loss(pass, {2}), c10::Error);
}

TEST_CASE("optimizers that sample labels need a likelihood", "[objective]") {
  Trainer likelihood(test::load<Objective>("sft"), "sophia"), other(load_doubled(), "sophia");
  CHECK_NOTHROW(likelihood.run());
  CHECK(has(message_of<ConfigError>([&] { other.run(); }), "is not a likelihood"));
}
