// What peft/adapters/adapter.h and peft/nn/site.h promise, on a small random model.
#include <torch/types.h>
#include <torch/utils.h>

#include <cstdlib>
#include <filesystem>

#include "nn/module_check.h"
#include "peft/adapters/hf_files.h"
#include "peft/adapters/training_hooks.h"
#include "peft/base/error.h"
#include "peft/train/train.h"
#include "plugin/plugin_call.h"
#include "runtime/finite.h"
#include "selfcheck/checks.h"
#include "selfcheck/tiny_model.h"
#include "train/gradient_check.h"

namespace peft {

namespace {

constexpr double kGradientTolerance = 1e-6;  // central differences in fp64, relative
constexpr double kLogitTolerance = 1e-12;    // the same computation in another order, relative to the largest logit

constexpr double kRecomputedTolerance = 1e-10;  // sums of shared parameters in another order
constexpr double kBf16Tolerance = 0.25;         // of logits, relative to the largest one; each product rounds to 2^-8

std::shared_ptr<CausalLm> small_model(torch::Dtype dtype = torch::kDouble) {
  return test::tiny_model(test::tiny_config(2, true), dtype);
}

/// Without adapters, of the same layers as `model`.
std::shared_ptr<CausalLm> base_of(const Model& model) {
  auto base = small_model();
  std::vector<std::pair<int64_t, int64_t>> layers;
  for (const int64_t layer : model.source_layers()) layers.emplace_back(layer, layer + 1);
  if (model.replicated()) base->replicate_layers(layers);
  return base;
}

Tensor logits(const CausalLm& model) { return model.logits(model.hidden_states(test::tiny_tokens(model, 11))); }

/// A scalar that every output element is part of.
Tensor objective(const CausalLm& model) { return at::sin(logits(model)).sum(); }

/// Batches of random tokens.
Calibration random_data(const CausalLm& model) {
  return {.batches = 3,
          .batch =
              [&model](std::size_t index) {
                const PackedTokens input = test::tiny_tokens(model, 24 + static_cast<int64_t>(index));
                return CalibrationBatch{input, input.ids, input.ids.size(0) - 1, input.cu_seqlens, input.ids};
              },
          .loss =
              [&model](const CalibrationBatch& batch) {
                return Pass(model, batch.input, batch.labels).cross_entropy_sum() /
                       static_cast<double>(batch.num_target_tokens);
              }};
}

double distance(const Tensor& a, const Tensor& b) {
  return ((a - b).abs().max() / b.abs().max().clamp_min(1e-300)).item<double>();
}

class TempDirectory {
 public:
  TempDirectory() {
    std::string path = (std::filesystem::temp_directory_path() / "peft-selfcheck-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) throw ResourceError("cannot create a temporary folder: " + path);
    path_ = path;
  }
  ~TempDirectory() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// One training pass of the model over an example: the loss and a copy of each gradient.
std::vector<Tensor> training_pass(CausalLm& model, ActivationCheckpointing checkpointing) {
  model.set_checkpointing(std::vector<ActivationCheckpointing>(model.layers().size(), checkpointing));
  for (const auto& [name, parameter] : model.trainable()) Tensor(parameter).mutable_grad().reset();
  torch::manual_seed(7);  // dropout's
  const PackedTokens input = test::tiny_tokens(model, 11);
  const Tensor loss = Pass(model, input, input.ids).cross_entropy_sum();
  std::vector<Tensor> results = {loss.detach()};
  if (loss.requires_grad()) loss.backward();
  for (const auto& [name, parameter] : model.trainable()) {
    results.push_back(parameter.grad());
    Tensor(parameter).mutable_grad().reset();
  }
  return results;
}

/// "" if the two are equal up to rounding.
std::string differs(const std::vector<Tensor>& expected, const std::vector<Tensor>& found) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i].defined() != found[i].defined()) return "a gradient is missing";
    if (!expected[i].defined()) continue;
    if (const double change = distance(found[i], expected[i]); !(change <= kRecomputedTolerance))
      return std::string(i == 0 ? "the loss differs by " : "a gradient differs by ") + text_of_number(change);
  }
  return "";
}

class AdapterCheck {
 public:
  AdapterCheck(const Subject& subject, Checks& checks)
      : subject_(subject), checks_(checks), adapter_(subject.make<Adapter>()) {
    torch::manual_seed(1);
    if (Calibrated* calibrated = adapter_->calibrated()) calibrated->calibrate(*model_, random_data(*model_));
    adapter_->attach(*model_, torch::kDouble);
    const auto base = base_of(*model_);
    base_logits_ = logits(*base);
    hash_ = base_hash(*base);
    model_->eval();  // no dropout
  }

  void run() {
    guarded("attaching leaves the outputs unchanged", [&] { check_init(); });
    randomize_weights();
    guarded("whatever wants a gradient is a registered parameter", [&] { check_registration(); });
    guarded("gradients match finite differences", [&] { check_gradients(); });
    guarded("the fused path matches forward", [&] { check_fusion(); });
    guarded("recomputed activations give the same gradients", [&] { check_recomputation(); });
    guarded("outputs do not depend on other examples", [&] { check_batching_and_cache(); });
    guarded("it trains in bf16", [&] { check_bf16(); });
    guarded("its training hooks keep parameters finite", [&] { check_hooks(); });
    guarded("merged weights give the same outputs", [&] { check_merging(); });
    guarded("saving and loading restores the adapter", [&] { check_files(); });
    guarded("a checkpoint restores the adapter", [&] { check_resuming(); });
    guarded("disabling restores the base's outputs", [&] { check_disabling(); });
    guarded("base weights are unchanged", [&] { check_base(); });
  }

 private:
  void report(const std::string& name, bool passed, const std::string& detail) { checks_.report(name, passed, detail); }
  /// Reports an exception that leaves `work`, which makes the reports itself, as a failure of `name`.
  void guarded(const std::string& name, const std::function<void()>& work);
  void check_init();
  void randomize_weights();
  void check_registration();
  void check_gradients();
  void check_fusion();
  void check_recomputation();
  void check_batching_and_cache();
  void check_bf16();
  void check_hooks();
  void check_merging();
  void check_files();
  void check_resuming();
  void check_disabling();
  void check_base();
  double slope(const Tensor& parameter, const Tensor& direction) const;
  std::unique_ptr<Adapter> another(Model& model, torch::Dtype dtype) const;
  const Subject& subject_;
  Checks& checks_;
  std::string hash_;
  std::shared_ptr<CausalLm> model_ = small_model();
  std::unique_ptr<Adapter> adapter_;
  Tensor base_logits_;
};

void AdapterCheck::guarded(const std::string& name, const std::function<void()>& work) {
  try {
    work();
  } catch (...) {
    detail::rethrow_missing_memory();
    report(name, false, detail::current_exception_text());
  }
}

/// Another adapter on `model`, with the same state and the same values, as a resumed run has it.
std::unique_ptr<Adapter> AdapterCheck::another(Model& model, torch::Dtype dtype) const {
  auto adapter = subject_.make<Adapter>();
  adapter->skip_init();
  adapter->load_state_dict(copy_of(adapter_->state_dict()));
  adapter->attach(model, dtype);
  const torch::NoGradGuard no_grad;
  const StateDict from = adapter_->all_tensors(*model_), to = adapter->all_tensors(model);
  for (const auto& [name, tensor] : from) {
    const auto it = to.find(name);
    if (it == to.end() || it->second.sizes() != tensor.sizes())
      throw PluginError("attached with its saved state it lacks '" + printable(name) + "' with that shape");
    Tensor(it->second).copy_(tensor);
  }
  if (to.size() != from.size()) throw PluginError("attached with its saved state it has more tensors");
  return adapter;
}

void AdapterCheck::check_init() {
  const double change = distance(logits(*model_), base_logits_);
  if (adapter_->is_identity_at_init())
    report("attaching leaves the outputs unchanged", change <= kLogitTolerance,
           "logits change by " + text_of_number(change));
  else
    report("attaching changes the outputs, as declared", true, "logits change by " + text_of_number(change));
}

/// Initial values can hide errors: with B = 0, A gets no gradient.
void AdapterCheck::randomize_weights() {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model_->trainable()) tensor.add_(torch::randn_like(tensor), 0.1);
}

/// Central difference of the objective along `direction`.
double AdapterCheck::slope(const Tensor& parameter, const Tensor& direction) const {
  const torch::NoGradGuard no_grad;
  constexpr double step = 1e-5;
  const Tensor original = parameter.clone();
  const auto at = [&](double distance) {
    parameter.copy_(original + distance * direction);
    return objective(*model_).item<double>();
  };
  const double above = at(step), below = at(-step);
  parameter.copy_(original);
  return (above - below) / (2 * step);
}

/// A leaf that is not registered would be neither trained nor saved.
void AdapterCheck::check_registration() {
  const std::string name = "whatever wants a gradient is a registered parameter";
  const NamedTensors trainable = model_->trainable();
  if (trainable.empty())
    return report(name, false,
                  "no parameter is registered, so nothing would train; create tensors with register_parameter in the "
                  "layer");
  const ParameterWatch watch(model_->sites(), trainable);
  for (const bool fused : {true, false}) {
    model_->enable_fusion(fused);
    objective(*model_);  // each site checks its layers
  }
  model_->enable_fusion(true);
  require_all_trained(*model_, parameters_of(adapter_->groups(*model_)), {adapter_.get()});
  report(name, true, std::to_string(trainable.size()) + " parameters");
}

void AdapterCheck::check_gradients() {
  if (const Tensor value = objective(*model_); value.requires_grad()) value.backward();
  double worst = 0;
  std::string worst_name = "none", missing;
  const NamedTensors trainable = model_->trainable();
  for (const auto& [name, parameter] : trainable) {
    if (!parameter.grad().defined()) {
      missing += " " + name;
      continue;
    }
    for (int trial = 0; trial < 3; ++trial) {
      const Tensor direction = torch::randn_like(parameter);
      const double computed = (parameter.grad() * direction).sum().item<double>();
      const double expected = slope(parameter, direction);
      const double error =
          std::abs(computed - expected) / std::max({std::abs(expected), parameter.grad().norm().item<double>(), 1e-6});
      if (error < worst) continue;
      worst = error;
      worst_name = name;
    }
  }
  if (!trainable.empty())
    report("every trainable tensor gets a gradient", missing.empty(),
           missing.empty() ? std::to_string(trainable.size()) + " tensors" : "none for" + missing);
  report("gradients match finite differences", !trainable.empty() && worst < kGradientTolerance,
         "largest difference " + text_of_number(worst) + ", in " + worst_name);
}

void AdapterCheck::check_fusion() {
  model_->enable_fusion(false);
  const Tensor plain = logits(*model_);
  model_->enable_fusion(true);
  const double change = distance(logits(*model_), plain);
  report("the fused path matches forward", change <= kLogitTolerance, "logits differ by " + text_of_number(change));
}

/// In training mode, with dropout. The backward pass runs each forward again, which must neither count its calls nor
/// change what it computes with.
void AdapterCheck::check_recomputation() {
  const std::string name = "recomputed activations give the same gradients";
  const StateDict before = copy_of(adapter_->all_tensors(*model_));
  std::string problem;
  model_->train();
  for (const bool fused : {true, false}) {
    model_->enable_fusion(fused);
    const std::vector<Tensor> saved = training_pass(*model_, ActivationCheckpointing::none);
    for (const auto checkpointing :
         {ActivationCheckpointing::selective, ActivationCheckpointing::full, ActivationCheckpointing::none})
      if (problem.empty()) problem = differs(saved, training_pass(*model_, checkpointing));
  }
  model_->enable_fusion(true);
  model_->eval();
  if (problem.empty()) problem = difference(before, adapter_->all_tensors(*model_));
  if (problem.empty()) return report(name, true, "in training mode");
  report(name, false,
         problem +
             "; forward must compute the same when it is called again, so it must not count its calls or change "
             "a buffer");
}

/// The base in bf16 and the parameters in fp32, as in most runs.
void AdapterCheck::check_bf16() {
  const auto model = small_model(torch::kBFloat16);
  const auto adapter = another(*model, torch::kFloat);
  std::string problem;
  for (const bool fused : {true, false}) {
    model->enable_fusion(fused);
    model->eval();
    const double change = distance(logits(*model).to(torch::kDouble), logits(*model_));
    if (!(change <= kBf16Tolerance)) problem = "logits differ from those in fp64 by " + text_of_number(change);
    model->train();
    const std::vector<Tensor> results = training_pass(*model, ActivationCheckpointing::none);
    for (const Tensor& result : results)
      if (!result.defined() || result.scalar_type() != torch::kFloat || !all_finite(result))
        problem = "a gradient is missing, not finite or not fp32, the parameters' dtype";
  }
  report("it trains in bf16", problem.empty(), problem.empty() ? "finite gradients in fp32" : problem);
}

/// Steps as the loop takes them, on a copy.
void AdapterCheck::check_hooks() {
  const auto model = small_model();
  const auto adapter = another(*model, torch::kDouble);
  TrainingHooks* hooks = adapter->training_hooks();
  if (hooks == nullptr) return;
  model->train();
  constexpr int64_t steps = 4;
  for (int64_t step = 1; step <= steps; ++step) {
    const PackedTokens input = test::tiny_tokens(*model, 11);
    Pass(*model, input, input.ids).cross_entropy_sum().backward();
    if (const Tensor loss = hooks->auxiliary_loss(); loss.defined()) {
      GradientCheck(*model).check_auxiliary_loss(*hooks, loss);
      loss.backward();
    }
    hooks->after_backward({step, steps});
    const torch::NoGradGuard no_grad;
    for (const auto& [name, parameter] : model->trainable())
      if (parameter.grad().defined()) Tensor(parameter).sub_(parameter.grad(), 1e-3);
    hooks->after_step({step, steps});
    for (const auto& [name, parameter] : model->trainable()) {
      if (!all_finite(parameter.detach())) return report("its training hooks keep parameters finite", false, name);
      Tensor(parameter).mutable_grad().reset();
    }
  }
  report("its training hooks keep parameters finite", true, std::to_string(steps) + " steps");
}

/// Evaluates the example next to another one; then in two parts and token by token, as generation does.
void AdapterCheck::check_batching_and_cache() {
  const torch::NoGradGuard no_grad;
  const PackedTokens example = test::tiny_tokens(*model_, 11);
  const Tensor expected = logits(*model_);
  const auto joined = [](const Tensor& t) { return at::cat({t.narrow(0, 0, 4), t}); };
  const Tensor batched =
      model_->logits(model_->hidden_states({joined(example.ids), joined(example.positions), {0, 4, 15}}));
  double change = std::max(distance(batched.narrow(0, 4, 11), expected),
                           distance(batched.narrow(0, 0, 4), expected.narrow(0, 0, 4)));
  report("outputs do not depend on other examples", change <= kLogitTolerance,
         "logits differ by " + text_of_number(change));

  KeyValueCache cache = model_->make_cache(11);
  std::vector<Tensor> parts;
  for (const auto& [first, count] : {std::pair{0, 5}, {5, 4}, {9, 1}, {10, 1}})
    parts.push_back(model_->logits(model_->hidden_states(
        {example.ids.narrow(0, first, count), example.positions.narrow(0, first, count), {0, count}}, &cache)));
  change = distance(at::cat(parts), expected);
  report("decoding with a cache gives the same outputs", change <= kLogitTolerance,
         "logits differ by " + text_of_number(change));
}

/// A model with the merged weights must give the same outputs without an adapter.
void AdapterCheck::check_merging() {
  const torch::NoGradGuard no_grad;
  const auto plain = std::make_shared<CausalLm>(model_->config());
  for (const Site* site : model_->sites()) {
    const auto weights = site->merged_weight(site->dense_base());
    if (!weights) return report("merging into weights", true, "not supported by this method (" + site->path() + ")");
    plain->find(site->path())->load_base_weight(*weights);
  }
  const double change = distance(logits(*plain), logits(*model_));
  report("merged weights give the same outputs", change <= kLogitTolerance,
         "logits differ by " + text_of_number(change));
}

void AdapterCheck::check_files() {
  const TempDirectory folder;
  save_adapter(folder.path(), *adapter_, *model_);
  const auto fresh = small_model();
  std::string detail = "bit-identical logits";
  bool same = false;
  try {
    const LoadedAdapter loaded = load_adapter(folder.path(), subject_.plugins, *fresh, torch::kDouble);
    fresh->eval();
    same = torch::equal(logits(*fresh), logits(*model_));
    if (!same) detail = "logits differ by " + text_of_number(distance(logits(*fresh), logits(*model_)));
  } catch (const Error& error) {
    detail = error.what();
  }
  report("saving and loading restores the adapter", same, detail);
}

void AdapterCheck::check_resuming() {
  const auto model = small_model();
  const auto adapter = another(*model, torch::kDouble);
  model->eval();
  const bool same = torch::equal(logits(*model), logits(*model_));
  report("a checkpoint restores the adapter", same, same ? "bit-identical logits" : "logits differ");
}

void AdapterCheck::check_disabling() {
  model_->enable_adapters(false);
  const bool same = torch::equal(logits(*model_), base_logits_);
  model_->enable_adapters(true);
  report("disabling restores the base's outputs", same, same ? "bit-identical logits" : "logits differ");
}

void AdapterCheck::check_base() {
  for (const auto& [name, tensor] : model_->frozen())
    if (tensor.requires_grad() || tensor.grad().defined()) return report("base weights are unchanged", false, name);
  report("base weights are unchanged", base_hash(*model_) == hash_, "hash " + hash_);
}

}  // namespace

void run_checks(Kind<Adapter>, const Subject& subject, Checks& checks) { AdapterCheck(subject, checks).run(); }

}  // namespace peft
