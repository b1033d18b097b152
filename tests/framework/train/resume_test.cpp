// Shows for resumed runs: a checkpoint's files, read by new objects, suffice to end with the same files as the
// uninterrupted run, byte for byte, also after two interruptions, for every method and optimizer of the tree and every
// precision, scheduler and clipping that has a state; a state that is missing or of another adapter is refused; a
// diverged run writes no checkpoint.
#include <torch/types.h>
#include <torch/utils.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "peft/adapters/adapter_state.h"
#include "peft/adapters/hf_files.h"
#include "peft/adapters/stack.h"
#include "peft/base/error.h"
#include "peft/files/manifest.h"
#include "peft/runtime/state_dict_file.h"
#include "peft/train/resume.h"
#include "peft/train/train.h"
#include "plugins/load.h"
#include "selfcheck/tiny_model.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;
using torch::Tensor;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kSteps = 6;

/// The settings in which rows differ.
struct Setup {
  std::string adapters;  ///< TOML of [adapter] or [[adapter]]
  std::string optimizer = "adamw", optimizer_options = "lr = 1e-2";
  std::string scheduler = "cosine", scheduler_options = "";
  std::string clipping = "norm", clipping_options = "";
  std::string precision = "fp32", precision_options = "";
  int64_t accumulation = 1;
  bool packing = false;
};

/// Skips the first steps and changes the scale in every step.
const std::string moving_scale = "init_scale = 17179869184.0\ngrowth_interval = 1\nbackoff_factor = 0.0001";

std::string adapter_table(const std::string& method, const std::string& options) {
  return "[adapter]\nname = \"" + method + "\"\n" + options;
}

Dataset test_data(std::size_t count, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  Dataset data;
  data.files = {"data.jsonl"};
  for (std::size_t i = 0; i < count; ++i) {
    const auto tokens = static_cast<int64_t>(6 + 3 * i % 11);
    const Tensor ids = torch::randint(40, {tokens}, generator, torch::kLong);
    Example example{{ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + tokens}, {}};
    example.labels = example.ids;
    example.line = static_cast<int64_t>(i + 1);
    data.examples.push_back(std::move(example));
  }
  return data;
}

struct Folder {
  fs::path path = fs::temp_directory_path() / ("peft_resume_" + std::to_string(::getpid()));
  Folder() { fs::remove_all(path); }
  ~Folder() { fs::remove_all(path); }
};

/// One process's part of a run: all objects are created, and resumed from the checkpoint `from` if it is not "".
class Session {
 public:
  Session(const Setup& setup, const fs::path& folder, const std::string& from = "")
      : folder_(folder.string()),
        document_(Document::from_text(setup.adapters, "exp.toml")),
        precision_(test::load<Precision>(setup.precision, setup.precision_options)),
        optimizer_(test::load<Optimizer>(setup.optimizer, setup.optimizer_options)),
        scheduler_(test::load<Scheduler>(setup.scheduler, setup.scheduler_options)),
        clipping_(test::load<GradientClipping>(setup.clipping, setup.clipping_options)),
        model_(test::tiny_model(test::tiny_config(2, /*attention_bias=*/true), precision_->base_dtype())),
        packing_(setup.packing) {
    options.max_steps = kSteps;
    options.batch_size = packing_ ? 1 : 2;
    options.gradient_accumulation_steps = setup.accumulation;
    options.save_every = 2;
    options.eval_every = 1;
    stack = read_adapters(document_, plugins_);
    document_.finish();
    fs::create_directories(folder_);
    torch::manual_seed(from.empty() ? 7 : 99);
    const torch::Dtype dtype = precision_->adapter_dtype();
    if (from.empty())
      attach_adapters(stack, *model_, dtype,
                      calibration(*model_, *precision_, *objective_, data_, options, packing_, 20));
    else
      resume_adapters(from, stack, *model_, dtype);
    if (!from.empty()) from_ = read_checkpoint(from);
    for (ParamGroup& group : groups_of(stack, *model_)) optimizer_->add_param_group(std::move(group));
  }

  /// Trains to the end, or until `stop` steps are done.
  TrainingResult go(int64_t stop = kSteps) {
    struct Watch : TrainingCallback {
      explicit Watch(int64_t last) : last_step(last) {}
      void on_step_end(const StepReport& report, TrainingControl& control) override {
        control.should_stop = report.step >= last_step;
      }
      int64_t last_step;
    } watch(stop);
    std::vector<Adapter*> adapters;
    for (const NamedAdapter& adapter : stack) adapters.push_back(adapter.adapter.get());
    TrainingSession run{.model = *model_,
                        .optimizer = *optimizer_,
                        .scheduler = *scheduler_,
                        .clipping = *clipping_,
                        .precision = *precision_,
                        .objective = *objective_,
                        .adapters = adapters,
                        .data = data_,
                        .eval_data = &eval_data_,
                        .packing = packing_,
                        .max_length = 20,
                        .options = options,
                        .memory = memory_,
                        .callbacks = {&watch},
                        .save =
                            [&](const Snapshot& snapshot) {
                              write_checkpoint(folder_, snapshot, stack, *model_, nlohmann::ordered_json::object(), {});
                            },
                        .resume = from_ ? &from_->states : nullptr};
    if (from_) require_resumable(run);
    return train(run);
  }

  StateDict tensors() const { return stack.front().adapter->all_tensors(*model_); }
  TrainingOptions options;
  AdapterStack stack;

 private:
  std::string folder_;
  Document document_;
  Plugins plugins_{Plugins::search_path({})};
  std::unique_ptr<Precision> precision_;
  std::unique_ptr<Objective> objective_ = test::load<Objective>("sft");
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<GradientClipping> clipping_;
  std::shared_ptr<CausalLm> model_;
  Dataset data_ = test_data(11, 3), eval_data_ = test_data(3, 4);
  MemoryMeter memory_{torch::kCPU};
  bool packing_;
  std::optional<TrainingCheckpoint> from_;
};

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Every file but those that hold how long it took.
void check_same(const fs::path& ours, const fs::path& theirs) {
  verify_manifest(ours.string());
  const auto names = [](const fs::path& folder) {
    std::set<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      all.insert(entry.path().lexically_relative(folder).string());
    return all;
  };
  CHECK(names(ours) == names(theirs));
  for (const std::string& name : names(ours)) {
    if (fs::is_directory(ours / name) || name == "manifest.json" || name == "progress.safetensors") continue;
    INFO(name);
    CHECK(bytes_of(ours / name) == bytes_of(theirs / name));
  }
  StateDict a = read_state((ours / "progress.safetensors").string()),
            b = read_state((theirs / "progress.safetensors").string());
  for (const char* time : {"seconds", "seconds_since"}) a.erase(time), b.erase(time);
  REQUIRE(a.size() == b.size());
  for (const auto& [name, tensor] : a) {
    INFO(name);
    CHECK(torch::equal(tensor, b.at(name)));
  }
}

std::string checkpoint(const fs::path& folder, int64_t step) {
  return (folder / ("checkpoint-" + std::to_string(step))).string();
}

/// Runs without interruption; then from step 2 to step 3, and from there to the end.
void check_resumes(const Setup& setup) {
  const Folder folder;
  const fs::path uninterrupted = folder.path / "uninterrupted", first = folder.path / "first",
                 second = folder.path / "second";
  Session(setup, uninterrupted).go();
  CHECK(Session(setup, first, checkpoint(uninterrupted, 2)).go(3).stopped);
  const TrainingResult result = Session(setup, second, checkpoint(first, 3)).go();
  CHECK(result.steps == kSteps);
  check_same(second / "checkpoint-4", uninterrupted / "checkpoint-4");
  check_same(second / "checkpoint-6", uninterrupted / "checkpoint-6");
}

std::string tokens() {
  std::string list = "[";
  for (int i = 0; i < 30; ++i) list += (i == 0 ? "" : ", ") + std::to_string(i);
  return list + "]\n";
}

/// A row for every method of the tree, and for each kind of state that a method has in addition to its weights.
const std::vector<std::pair<std::string, std::string>> methods = {
    {"adalora", "init_r = 4\ntarget_r = 2\ntinit = 1\nlora_dropout = 0.2\n"},
    {"adalora", "init_r = 4\ntarget_r = 2\ntfinal = 4\ntarget_modules = \"all-linear\"\n"},  // settled early
    {"adaption_prompt", "adapter_len = 3\n"},
    {"beft", ""},
    {"bitfit", ""},
    {"boft", "boft_block_size = 4\n"},
    {"bottleneck", "reduction_factor = 4.0\ndropout = 0.2\n"},
    {"c3a", "block_size = 4\n"},
    {"delora", "r = 3\nmodule_dropout = 0.2\n"},
    {"fourierft", "n_frequency = 20\n"},
    {"full", ""},
    {"gralora", "r = 4\ngralora_k = 2\ngralora_dropout = 0.2\n"},
    {"hira", "r = 3\nhira_dropout = 0.2\n"},
    {"hra", "r = 4\n"},
    {"ia3", ""},
    {"ln_tuning", "modules_to_save = [\"lm_head\"]\n"},
    {"loha", "r = 3\n"},
    {"lokr", "r = 2\n"},
    {"lora", "r = 4\nlora_dropout = 0.2\nbias = \"all\"\nmodules_to_save = [\"norm\"]\n"},
    {"lora", "r = 4\nlora_dropout = 0.2\nuse_dora = true\ninit_lora_weights = \"olora\"\n"},
    {"lora", "r = 4\nuse_lorafa = true\nloraplus_lr_ratio = 4.0\n"},
    {"lora", "r = 4\ninit_lora_weights = \"pissa\"\nlora_dropout = 0.2\n"},
    {"lora", "r = 4\ninit_lora_weights = \"pissa_niter_4\"\n"},
    {"lora", "r = 4\ninit_lora_weights = \"orthogonal\"\n"},
    {"lora", "r = 4\ninit_lora_weights = \"loftq\"\n"},
    {"lora", "r = 2\ninit_lora_weights = \"eva\"\ntarget_modules = \"all-linear\"\nexclude_modules = [\"lm_head\"]\n"},
    {"lora", "r = 4\ninit_lora_weights = \"corda\"\n"},
    {"lora", "r = 4\ninit_lora_weights = \"lora_ga\"\n"},
    {"lora", "r = 4\ntrainable_token_indices = " + tokens()},
    {"miss", "r = 4\nmiss_dropout = 0.2\n"},
    {"oft", "oft_block_size = 4\n"},
    {"p_tuning", "num_virtual_tokens = 3\nencoder_hidden_size = 8\n"},
    {"p_tuning",
     "num_virtual_tokens = 3\nencoder_hidden_size = 8\nencoder_reparameterization_type = \"LSTM\"\n"
     "encoder_dropout = 0.2\n"},
    {"prefix_tuning", "num_virtual_tokens = 3\n"},
    {"prefix_tuning", "num_virtual_tokens = 3\nprefix_projection = true\nencoder_hidden_size = 8\n"},
    {"prompt_tuning", "num_virtual_tokens = 3\n"},
    {"randlora", "r = 4\nsave_projection = false\nrandlora_dropout = 0.2\n"},
    {"road", "group_size = 8\n"},
    {"shira", "r = 2\n"},
    {"trainable_tokens", "token_indices = " + tokens()},
    {"vblora", "num_vectors = 8\nvector_length = 4\nsave_only_topk_weights = true\nvblora_dropout = 0.2\n"},
    {"vblora", "num_vectors = 8\nvector_length = 4\n"},
    {"vera", "r = 6\nsave_projection = false\nvera_dropout = 0.2\n"},
    {"waveft", "n_frequency = 20\n"},
};

const std::vector<std::pair<std::string, std::string>> optimizers = {
    {"adafactor", "lr = 1e-2\nbeta1 = 0.9"},
    {"adamw", "lr = 1e-2"},
    {"adamw_8bit", "lr = 1e-2\nmin_8bit_size = 0"},
    {"galore", "lr = 1e-2\nrank = 2\nupdate_proj_gap = 4"},
    {"lamb", "lr = 1e-2"},
    {"lion", "lr = 1e-3"},
    {"muon", "lr = 1e-2"},
    {"schedule_free_adamw", "lr = 1e-2"},
    {"sgd", "lr = 1e-1\nmomentum = 0.9"},
    {"sophia", "lr = 1e-3\nupdate_period = 2"},
};

}  // namespace

TEST_CASE("every method resumes as if it had not been interrupted, in turns of precision, accumulation and packing") {
  for (std::size_t i = 0; i < methods.size(); ++i) {
    const auto& [method, options] = methods[i];
    Setup setup{.adapters = adapter_table(method, options)};
    setup.precision = i % 3 == 0 ? "fp32" : i % 3 == 1 ? "bf16" : "fp16";
    if (setup.precision == "fp16") setup.precision_options = moving_scale;
    setup.accumulation = i % 2 == 0 ? 1 : 4;
    setup.packing = i % 4 >= 2;
    INFO(method << " " << options << " " << setup.precision);
    check_resumes(setup);
  }
}

TEST_CASE("every optimizer resumes") {
  for (const auto& [optimizer, options] : optimizers) {
    INFO(optimizer);
    check_resumes({.adapters = adapter_table("lora", "r = 4\nlora_dropout = 0.2\nbias = \"all\"\n"),
                   .optimizer = optimizer,
                   .optimizer_options = options});
  }
}

TEST_CASE("the tests above cover every method and optimizer of the tree") {
  const auto named = [](const auto& rows, const std::string& name) {
    return std::any_of(rows.begin(), rows.end(), [&](const auto& row) { return row.first == name; });
  };
  std::size_t seen = 0;
  for (const PluginStatus& plugin : Plugins(Plugins::search_path({})).scan()) {
    if (plugin.kind != "adapter" && plugin.kind != "optimizer") continue;
    INFO(plugin.kind << "/" << plugin.name);
    CHECK(named(plugin.kind == "adapter" ? methods : optimizers, plugin.name));
    ++seen;
  }
  CHECK(seen > 30);
}

TEST_CASE("schedules that depend on evaluations, clipping that depends on norms and several adapters resume") {
  const std::string lora = "[[adapter]]\nname = \"lora\"\nr = 4\nlora_dropout = 0.2\ninit_lora_weights = \"pissa\"\n";
  const std::string adalora = "[[adapter]]\nname = \"adalora\"\ninit_r = 4\ntarget_r = 2\nlr = 1e-3\n";
  const std::string vera = "[[adapter]]\nname = \"vera\"\nr = 4\nadapter_name = \"inner\"\n";
  Setup setup{.adapters = lora + "target_modules = [\"q_proj\"]\n" + adalora + "target_modules = [\"v_proj\"]\n" + vera,
              .scheduler = "reduce_on_plateau",
              .scheduler_options = "factor = 0.5\npatience = 0\nthreshold = 0.5",
              .clipping = "zclip",
              .clipping_options = "warmup_steps = 2\nz_thresh = 0.1"};
  for (const char* precision : {"fp32", "bf16", "fp16", "fp64"})
    for (const int64_t accumulation : {1, 4}) {
      INFO(precision << " " << accumulation);
      setup.precision = precision;
      setup.precision_options = setup.precision == "fp16" ? moving_scale : "";
      setup.accumulation = accumulation;
      check_resumes(setup);
    }
}

TEST_CASE("a run resumes from every step") {
  const Folder folder;
  const Setup setup{.adapters = adapter_table("lora", "r = 4\nlora_dropout = 0.2\nuse_dora = true\n"),
                    .accumulation = 2};
  Session uninterrupted(setup, folder.path / "uninterrupted");
  uninterrupted.options.save_every = 1;
  uninterrupted.go();
  for (int64_t step = 1; step <= kSteps; ++step) {
    const fs::path on = folder.path / std::to_string(step);
    Session session(setup, on, checkpoint(folder.path / "uninterrupted", step));
    CHECK(session.go().steps == kSteps);
    if (step < kSteps) check_same(on / "checkpoint-6", folder.path / "uninterrupted" / "checkpoint-6");
    const StateDict ours = session.tensors(), theirs = uninterrupted.tensors();
    REQUIRE(ours.size() == theirs.size());
    for (const auto& [name, tensor] : ours) CHECK(torch::equal(tensor, theirs.at(name)));
  }
}

namespace {

/// Removes the tensors whose names start with `prefix` from a state file.
void remove_tensors(const fs::path& file, const std::string& prefix) {
  StateDict state = read_state(file.string());
  REQUIRE(std::erase_if(state, [&](const auto& item) { return item.first.starts_with(prefix); }) > 0);
  fs::remove(file);
  if (!state.empty()) write_state(file.string(), state, {});
}

}  // namespace

TEST_CASE("a checkpoint without the state of its method is refused") {
  const Folder folder;
  const fs::path uninterrupted = folder.path / "uninterrupted", changed = folder.path / "changed" / "checkpoint-2";
  const auto resume = [&](const Setup& setup) {
    fs::remove(changed / "manifest.json");
    write_manifest(changed.string());
    Session(setup, folder.path / "on", changed.string()).go();
  };
  const auto begin = [&](const Setup& setup) {
    fs::remove_all(folder.path);
    Session(setup, uninterrupted).go();
    fs::create_directories(changed.parent_path());
    fs::copy(checkpoint(uninterrupted, 2), changed, fs::copy_options::recursive);
  };
  SECTION("AdaLoRA: its budget") {
    const Setup setup{.adapters = adapter_table("adalora", "init_r = 4\ntarget_r = 2\n")};
    begin(setup);
    remove_tensors(changed / "adapter_state.safetensors", "method:");
    CHECK(has(message_of<InputError>([&] { resume(setup); }), "does not contain the adapter of this experiment"));
  }
  SECTION("LoRA-GA: what was subtracted from the base") {
    const Setup setup{.adapters = adapter_table("lora", "r = 4\ninit_lora_weights = \"lora_ga\"\n")};
    begin(setup);
    remove_tensors(changed / "adapter_state.safetensors", "method:");
    CHECK(has(message_of<InputError>([&] { resume(setup); }), "does not contain the adapter of this experiment"));
  }
  SECTION("a method whose file does not contain its trainable parameters: these") {
    const Setup setup{
        .adapters = adapter_table("vblora", "num_vectors = 8\nvector_length = 4\nsave_only_topk_weights = true\n")};
    begin(setup);
    remove_tensors(changed / "adapter_state.safetensors", "layers:");
    CHECK(has(message_of<InputError>([&] { resume(setup); }), "missing: "));
  }
  SECTION("the state of another method is refused") {
    begin({.adapters = adapter_table("adalora", "init_r = 4\ntarget_r = 2\n")});
    const Setup other{.adapters = adapter_table("lora", "r = 4\n")};
    CHECK(has(message_of<InputError>([&] { resume(other); }), "which this method does not have"));
  }
}

TEST_CASE("a run's length can change only if no step so far depended on it") {
  const Folder folder;
  const auto message = [&](const Setup& setup, int64_t steps) {
    fs::remove_all(folder.path);
    Session(setup, folder.path / "uninterrupted").go();
    Session longer(setup, folder.path / "longer", checkpoint(folder.path / "uninterrupted", 2));
    longer.options.max_steps = steps;
    return message_of<ConfigError>([&] { longer.go(steps); });
  };
  const Setup constant{.adapters = adapter_table("lora", "r = 4\n"), .scheduler = "constant"};
  CHECK(message(constant, 8).empty());
  CHECK(has(message(constant, 1), "the run now ends at 1"));
  CHECK(has(message({.adapters = adapter_table("lora", "r = 4\n")}, 8), "on which the schedule depends"));
  Setup adalora{.adapters = adapter_table("adalora", "init_r = 4\ntarget_r = 2\n"), .scheduler = "constant"};
  CHECK(has(message(adalora, 8), "on which the adapter's method depends"));
  adalora.adapters += "total_step = 6\n";
  CHECK(message(adalora, 8).empty());
}
