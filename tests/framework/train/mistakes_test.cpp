// Shows for the training loop: what a plugin does wrong ends the run in its first step with a PluginError that names
// the plugin's file and, for a layer, the module, also if activations are recomputed; a run that learns nothing, or
// whose parameters stay as they were, says so and why, across an interruption too; and the checks change no result.
#include <torch/nn/module.h>
#include <torch/types.h>
#include <torch/utils.h>

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

Dataset test_data() {
  auto generator = at::detail::createCPUGenerator(3);
  Dataset data;
  data.files = {"data.jsonl"};
  for (int64_t i = 0; i < 6; ++i) {
    const Tensor ids = torch::randint(40, {4 + i}, generator, torch::kLong);
    Example example{{ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + 4 + i}, {}};
    example.labels = example.ids;
    data.examples.push_back(std::move(example));
  }
  return data;
}

/// A plugin of the tree, or the fixture with its mistake.
template <class Interface>
std::unique_ptr<Interface> make(const std::string& name, const std::string& toml) {
  Plugins plugins(Plugins::search_path({PEFT_MISTAKEN}));
  const std::string table = Kind<Interface>::name;
  Document document = Document::from_text("[" + table + "]\n" + toml + "\n", table + ".toml");
  Options options = document.table(table);
  auto made = plugins.make<Interface>(name, options);
  document.finish();
  return made;
}

struct Run {
  /// `mistaken`: the kind that is the fixture, with this mistake; "" for none.
  explicit Run(const std::string& mistaken = "", const std::string& mistake = "") {
    const auto toml = [&](const std::string& kind, const std::string& otherwise) {
      return kind == mistaken ? "mistake = \"" + mistake + "\"" : otherwise;
    };
    const auto name = [&](const std::string& kind, const std::string& otherwise) {
      return kind == mistaken ? "mistaken" : otherwise;
    };
    adapter = make<Adapter>(name("adapter", "lora"), toml("adapter", "target_modules = \"all-linear\""));
    optimizer = make<Optimizer>(name("optimizer", "adamw"), toml("optimizer", "lr = 1e-2"));
    scheduler = make<Scheduler>(name("scheduler", "linear"), toml("scheduler", ""));
    clipping = make<GradientClipping>(name("clipping", "norm"), toml("clipping", ""));
    precision = make<Precision>(name("precision", "fp32"), toml("precision", ""));
    objective = make<Objective>(name("objective", "sft"), toml("objective", ""));
    options.max_steps = 3;
    options.batch_size = 6;  // 39 tokens
    if (scheduler->needs_evaluations()) {
      options.eval_every = 1;
      eval_data = data;
    }
  }
  TrainingResult run(const RunState* from = nullptr) {
    RunState state = from != nullptr ? *from : RunState();  // train() empties it
    torch::manual_seed(5);
    model = test::tiny_model(test::tiny_config(), precision->base_dtype());
    adapter->attach(*model, precision->adapter_dtype());
    model->set_checkpointing(std::vector<ActivationCheckpointing>(model->layers().size(), checkpointing));
    for (ParamGroup& group : adapter->groups(*model)) optimizer->add_param_group(std::move(group));
    TrainingSession session{.model = *model,
                            .optimizer = *optimizer,
                            .scheduler = *scheduler,
                            .clipping = *clipping,
                            .precision = *precision,
                            .objective = *objective,
                            .adapters = {adapter.get()},
                            .data = data,
                            .eval_data = eval_data ? &*eval_data : nullptr,
                            .max_length = 64,
                            .options = options,
                            .memory = memory,
                            .callbacks = {},
                            .save = [this](const Snapshot& snapshot) { snapshots.push_back(snapshot); },
                            .resume = from != nullptr ? &state : nullptr};
    return train(session);
  }
  std::shared_ptr<CausalLm> model;
  std::unique_ptr<Adapter> adapter;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<GradientClipping> clipping;
  std::unique_ptr<Precision> precision;
  std::unique_ptr<Objective> objective;
  ActivationCheckpointing checkpointing = ActivationCheckpointing::none;
  Dataset data = test_data();
  std::optional<Dataset> eval_data;
  TrainingOptions options;
  MemoryMeter memory{torch::kCPU};
  std::vector<Snapshot> snapshots;
};

struct Mistake {
  std::string kind, mistake, message;
};

}  // namespace

TEST_CASE("the fixtures train without a mistake") {
  for (const std::string& kind : plugin_kind_names()) {
    INFO(kind);
    const TrainingResult result = Run(kind, "").run();
    CHECK(result.learning.problem == "");
    CHECK(result.learning.tensors > 0);
  }
}

TEST_CASE("a plugin's mistake ends the run with the plugin's name") {
  const std::vector<Mistake> mistakes = {
      {"adapter", "unregistered",
       "uses a tensor that requires a gradient but is not a registered parameter (fp32 [16])"},
      {"adapter", "unregistered A", "uses a tensor that requires a gradient but is not a registered parameter"},
      {"adapter", "trained buffer", "the optimizer does not train 'model.layers."},
      {"adapter", "forgets one", "the optimizer does not train 'model.layers."},
      {"adapter", "one twice", "param groups have a parameter twice"},
      {"adapter", "stray", "'stray' of a param group is not registered in a layer"},
      {"adapter", "unused", "got no gradient"},
      {"adapter", "no gradient", "no gradient"},
      {"adapter", "shape", "the result is fp32 [39, 15]; it must be fp32 [39, 16]"},
      {"adapter", "undefined", "the result is an undefined tensor"},
      {"adapter", "argument", "the argument of next is fp16"},
      {"adapter", "auxiliary", "auxiliary_loss failed: it depends on a tensor"},
      {"optimizer", "dtype", "step failed: it changed the dtype or the shape of parameter 'model.layers."},
      {"scheduler", "nan", "lr failed: the learning rate of step "},
      {"scheduler", "negative", "lr failed: the learning rate of step 3 of 3 is -"},
      {"clipping", "always 0", "clip failed: it returned 0"},
      {"clipping", "half", "clip failed: it returned "},
      {"precision", "detaches", "forward failed: the loss that it returns has no gradient"},
      {"precision", "nothing", "forward failed: it must return the loss"},
      {"objective", "detached", "loss failed: the loss has no gradient, although the model's outputs have one"},
      {"objective", "vector", "loss failed: it must return the loss, one floating-point number, not fp32 [3]"},
      {"objective", "own parameter", "loss failed: the loss depends on a tensor that requires a gradient"},
  };
  for (const auto checkpointing :
       {ActivationCheckpointing::none, ActivationCheckpointing::selective, ActivationCheckpointing::full})
    for (const Mistake& mistake : mistakes) {
      INFO(mistake.kind << ": " << mistake.mistake << ", checkpointing " << static_cast<int>(checkpointing));
      Run run(mistake.kind, mistake.mistake);
      run.checkpointing = checkpointing;
      const std::string found = message_of<PluginError>([&] { run.run(); });
      INFO(found);
      CHECK(has(found, "peft_" + mistake.kind + "_mistaken.so: "));
      CHECK(has(found, mistake.message));
    }
}

TEST_CASE("a layer with another dtype is named in a bf16 run") {
  Run run("adapter", "promotes");
  run.precision = make<Precision>("bf16", "");
  const std::string found = message_of<PluginError>([&] { run.run(); });
  CHECK(has(found, "peft_adapter_mistaken.so: forward failed: 'model.layers.0."));
  CHECK(has(found, "the result is fp32 [39, 16]; it must be bf16 [39, 16]"));
}

TEST_CASE("a run that learns says that all of the adapter changed") {
  Run run;
  const TrainingResult result = run.run();
  CHECK(result.learning.problem == "");
  CHECK(result.learning.unchanged.empty());
  CHECK(result.learning.text() == "28 of the adapter's 28 tensors are different from the start");
}

TEST_CASE("a run that learns nothing says so, and why") {
  SECTION("a learning rate of 0") {
    Run run;
    run.optimizer = make<Optimizer>("adamw", "lr = 0\nweight_decay = 0.1");
    const LearningResult learning = run.run().learning;
    CHECK(learning.problem == "nothing was learned: the learning rate of every step was 0");
    CHECK(learning.unchanged.size() == learning.tensors);
    CHECK(
        has(learning.text(), "0 of the adapter's 28 tensors are different from the start; unchanged: 'model.layers."));
    CHECK(has(learning.text(), " and 25 more"));
  }
  SECTION("an adapter whose scale is 0") {
    Run run;
    run.adapter = make<Adapter>("lora", "target_modules = \"all-linear\"\nlora_alpha = 0");
    CHECK(has(run.run().learning.problem, "nothing was learned: the gradient norm of every step was 0"));
  }
  SECTION("the same with weight decay, which changes A") {
    Run run;
    run.adapter = make<Adapter>("lora", "target_modules = \"all-linear\"\nlora_alpha = 0");
    run.optimizer = make<Optimizer>("adamw", "lr = 1e-2\nweight_decay = 0.1");
    const LearningResult learning = run.run().learning;
    CHECK(has(learning.problem, "nothing was learned: the gradient norm of every step was 0"));
    CHECK(learning.unchanged.size() == learning.tensors / 2);
  }
  SECTION("an optimizer that does nothing") {
    CHECK(has(Run("optimizer", "still").run().learning.problem, "nothing was learned: no step changed a value"));
  }
}

TEST_CASE("parameters that did not change are named") {
  Run run;
  run.options.max_steps = 1;  // with B = 0, A has a gradient of 0
  const LearningResult learning = run.run().learning;
  CHECK(learning.problem == "");
  CHECK(learning.unchanged.size() == 14);
  for (const std::string& name : learning.unchanged) CHECK(has(name, "lora_A"));
}

TEST_CASE("what changed before an interruption counts") {
  Run before, after;
  before.optimizer = make<Optimizer>("adamw", "lr = 1e-2");
  before.options.save_every = 1;
  before.run();
  REQUIRE(before.snapshots.size() == 3);
  // Steps 2 and 3 of a run whose learning rate is 0 from then on; the parameters of step 1 are not restored here.
  const RunState states = before.snapshots[0].states;
  after.optimizer = make<Optimizer>("adamw", "lr = 0");
  const LearningResult learning = after.run(&states).learning;
  CHECK(learning.problem == "");
  for (const std::string& name : learning.unchanged) CHECK(has(name, "lora_A"));
  CHECK(learning.unchanged.size() == 14);

  RunState older = states;  // as earlier versions wrote it
  std::erase_if(older.at("progress"), [](const auto& entry) {
    return entry.first.starts_with("unchanged.") || entry.first == "learning_steps";
  });
  Run resumed;
  resumed.optimizer = make<Optimizer>("adamw", "lr = 0");
  const LearningResult of_older = resumed.run(&older).learning;
  CHECK(of_older.problem == "");
  CHECK(of_older.unchanged.empty());
}
