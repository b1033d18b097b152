#include "peft/selfcheck/selfcheck.h"

#include <torch/torch.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "peft/adapters/hf_files.h"
#include "peft/base/error.h"
#include "peft/train/train.h"
#include "selfcheck/tiny_model.h"

namespace peft {

namespace {

constexpr double kGradientTolerance = 1e-6;  // central differences in fp64, relative
constexpr double kLogitTolerance = 1e-12;    // the same computation in another order, relative to the largest logit

std::shared_ptr<CausalLm> small_model() { return test::tiny_model(test::tiny_config(2, true), torch::kDouble); }

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

std::string text_of(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
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

class AdapterCheck {
 public:
  AdapterCheck(Plugins& plugins, const std::string& name, const std::string& options) : plugins_(plugins) {
    Document document = Document::from_text("[adapter]\n" + options + "\n", "selfcheck");
    Options table = document.table("adapter");
    adapter_ = plugins.make<Adapter>(name, table);
    document.finish();
    torch::manual_seed(1);
    if (Calibrated* calibrated = adapter_->calibrated()) calibrated->calibrate(*model_, random_data(*model_));
    adapter_->attach(*model_, torch::kDouble);
    const auto base = base_of(*model_);
    base_logits_ = logits(*base);
    hash_ = base_hash(*base);
    model_->eval();  // no dropout
  }

  std::vector<CheckResult> run() {
    check_init();
    randomize_weights();
    check_gradients();
    check_fusion();
    check_batching_and_cache();
    check_merging();
    check_files();
    check_disabling();
    check_base();
    return std::move(results_);
  }

 private:
  void report(const std::string& name, bool passed, const std::string& detail) {
    results_.push_back({name, passed, detail});
  }
  void check_init();
  void randomize_weights();
  void check_gradients();
  void check_fusion();
  void check_batching_and_cache();
  void check_merging();
  void check_files();
  void check_disabling();
  void check_base();
  double slope(const Tensor& parameter, const Tensor& direction) const;
  Plugins& plugins_;
  std::string hash_;
  std::shared_ptr<CausalLm> model_ = small_model();
  std::unique_ptr<Adapter> adapter_;
  Tensor base_logits_;
  std::vector<CheckResult> results_;
};

void AdapterCheck::check_init() {
  const double change = distance(logits(*model_), base_logits_);
  if (adapter_->is_identity_at_init())
    report("attaching leaves the outputs unchanged", change <= kLogitTolerance, "logits change by " + text_of(change));
  else
    report("attaching changes the outputs, as declared", true, "logits change by " + text_of(change));
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

void AdapterCheck::check_gradients() {
  objective(*model_).backward();
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
  report("every trainable tensor gets a gradient", !trainable.empty() && missing.empty(),
         missing.empty() ? std::to_string(trainable.size()) + " tensors" : "none for" + missing);
  report("gradients match finite differences", worst < kGradientTolerance,
         "largest difference " + text_of(worst) + ", in " + worst_name);
}

void AdapterCheck::check_fusion() {
  model_->enable_fusion(false);
  const Tensor plain = logits(*model_);
  model_->enable_fusion(true);
  const double change = distance(logits(*model_), plain);
  report("the fused path matches forward", change <= kLogitTolerance, "logits differ by " + text_of(change));
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
  report("outputs do not depend on other examples", change <= kLogitTolerance, "logits differ by " + text_of(change));

  KeyValueCache cache = model_->make_cache(11);
  std::vector<Tensor> parts;
  for (const auto& [first, count] : {std::pair{0, 5}, {5, 4}, {9, 1}, {10, 1}})
    parts.push_back(model_->logits(model_->hidden_states(
        {example.ids.narrow(0, first, count), example.positions.narrow(0, first, count), {0, count}}, &cache)));
  change = distance(at::cat(parts), expected);
  report("decoding with a cache gives the same outputs", change <= kLogitTolerance,
         "logits differ by " + text_of(change));
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
  report("merged weights give the same outputs", change <= kLogitTolerance, "logits differ by " + text_of(change));
}

void AdapterCheck::check_files() {
  const TempDirectory folder;
  save_adapter(folder.path(), *adapter_, *model_);
  const auto fresh = small_model();
  std::string detail = "bit-identical logits";
  bool same = false;
  try {
    const LoadedAdapter loaded = load_adapter(folder.path(), plugins_, *fresh, torch::kDouble);
    fresh->eval();
    same = torch::equal(logits(*fresh), logits(*model_));
    if (!same) detail = "logits differ by " + text_of(distance(logits(*fresh), logits(*model_)));
  } catch (const Error& error) {
    detail = error.what();
  }
  report("saving and loading restores the adapter", same, detail);
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

std::vector<CheckResult> selfcheck_adapter(Plugins& plugins, const std::string& name, const std::string& options) {
  return AdapterCheck(plugins, name, options).run();
}

}  // namespace peft
