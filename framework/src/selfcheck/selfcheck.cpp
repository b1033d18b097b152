#include "peft/selfcheck/selfcheck.h"

#include <torch/torch.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "peft/adapters/files.h"
#include "peft/base/error.h"
#include "peft/train/train.h"
#include "selfcheck/tiny_model.h"

namespace peft {

namespace {

constexpr double kGradient = 1e-6;  // of central differences in fp64, relative
constexpr double kSame = 1e-12;     // of the same mathematics in another order, relative to the largest logit

std::shared_ptr<Model> small_model() { return test::tiny_model(test::tiny_config(2, true), torch::kDouble); }

/// Without adapters, of the same layers as `model`.
std::shared_ptr<Model> base_of(const Model& model) {
  auto base = small_model();
  std::vector<std::pair<int64_t, int64_t>> layers;
  for (const int64_t layer : model.source_layers()) layers.emplace_back(layer, layer + 1);
  if (model.replicated()) base->replicate_layers(layers);
  return base;
}

Tensor logits(const Model& model) { return model.logits(model.hidden_states(test::tiny_tokens(model, 11))); }

/// A scalar that every output element is part of.
Tensor objective(const Model& model) { return at::sin(logits(model)).sum(); }

/// Random tokens that are followed by the same again.
Calibration random_data(const Model& model) {
  return {.batches = 3,
          .batch =
              [&model](std::size_t index) {
                const PackedTokens input = test::tiny_tokens(model, 24 + static_cast<int64_t>(index));
                return CalibrationBatch{input, input.ids, input.ids.size(0) - 1, input.cu_seqlens, input.ids};
              },
          .loss =
              [&model](const CalibrationBatch& batch) {
                return model.loss_sum(batch.input, batch.labels) / static_cast<double>(batch.num_target_tokens);
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
    if (::mkdtemp(path.data()) == nullptr) throw ResourceError("no temporary folder can be made: " + path);
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
    adapter_->calibrate(*model_, random_data(*model_));
    adapter_->attach(*model_, torch::kDouble);
    const auto base = base_of(*model_);
    base_logits_ = logits(*base);
    hash_ = base_hash(*base);
    model_->eval();  // dropout would make every answer another one
  }

  std::vector<CheckResult> run() {
    start();
    randomize_weights();
    gradients();
    fusion();
    check_batching_and_cache();
    folding();
    files();
    disabled();
    base();
    return std::move(findings_);
  }

 private:
  void tell(const std::string& promise, bool kept, const std::string& detail) {
    findings_.push_back({promise, kept, detail});
  }
  void start();
  void randomize_weights();
  void gradients();
  void fusion();
  void check_batching_and_cache();
  void folding();
  void files();
  void disabled();
  void base();
  double slope(const Tensor& parameter, const Tensor& direction) const;
  Plugins& plugins_;
  std::string hash_;
  std::shared_ptr<Model> model_ = small_model();
  std::unique_ptr<Adapter> adapter_;
  Tensor base_logits_;
  std::vector<CheckResult> findings_;
};

void AdapterCheck::start() {
  const double change = distance(logits(*model_), base_logits_);
  if (adapter_->is_identity_at_init())
    tell("attached, it changes nothing yet", change <= kSame, "logits move by " + text_of(change));
  else
    tell("it declares that it starts elsewhere than at the base", true, "logits move by " + text_of(change));
}

/// Away from starting values that hide errors: a B of zeros gives A no gradient.
void AdapterCheck::randomize_weights() {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model_->trainable()) Tensor(tensor).add_(torch::randn_like(tensor), 0.1);
}

/// Central difference of the objective along `direction`.
double AdapterCheck::slope(const Tensor& parameter, const Tensor& direction) const {
  const torch::NoGradGuard no_grad;
  constexpr double step = 1e-5;
  const Tensor kept = parameter.clone();
  const auto at = [&](double distance) {
    Tensor(parameter).copy_(kept + distance * direction);
    return objective(*model_).item<double>();
  };
  const double ahead = at(step), behind = at(-step);
  Tensor(parameter).copy_(kept);
  return (ahead - behind) / (2 * step);
}

void AdapterCheck::gradients() {
  objective(*model_).backward();
  double worst = 0;
  std::string where = "none", silent;
  const NamedTensors trainable = model_->trainable();
  for (const auto& [name, parameter] : trainable) {
    if (!parameter.grad().defined()) {
      silent += " " + name;
      continue;
    }
    for (int trial = 0; trial < 3; ++trial) {
      const Tensor direction = torch::randn_like(parameter);
      const double claimed = (parameter.grad() * direction).sum().item<double>();
      const double found = slope(parameter, direction);
      const double error =
          std::abs(claimed - found) / std::max({std::abs(found), parameter.grad().norm().item<double>(), 1e-6});
      if (error >= worst) worst = error, where = name;
    }
  }
  tell("every trainable tensor gets a gradient", !trainable.empty() && silent.empty(),
       silent.empty() ? std::to_string(trainable.size()) + " tensors" : "none for" + silent);
  tell("gradients are those of finite differences", worst < kGradient,
       "largest difference " + text_of(worst) + ", in " + where);
}

void AdapterCheck::fusion() {
  model_->enable_fusion(false);
  const Tensor plain = logits(*model_);
  model_->enable_fusion(true);
  const double change = distance(logits(*model_), plain);
  tell("fused layers compute what forward does", change <= kSame, "logits differ by " + text_of(change));
}

/// The example beside another one, and in two parts and then token by token, as generation does.
void AdapterCheck::check_batching_and_cache() {
  const torch::NoGradGuard no_grad;
  const PackedTokens one = test::tiny_tokens(*model_, 11);
  const Tensor whole = logits(*model_);
  const auto joined = [](const Tensor& t) { return at::cat({t.narrow(0, 0, 4), t}); };
  const Tensor beside = model_->logits(model_->hidden_states({joined(one.ids), joined(one.positions), {0, 4, 15}}));
  double change =
      std::max(distance(beside.narrow(0, 4, 11), whole), distance(beside.narrow(0, 0, 4), whole.narrow(0, 0, 4)));
  tell("beside another example it computes the same", change <= kSame, "logits differ by " + text_of(change));

  KeyValueCache cache = model_->make_cache(11);
  std::vector<Tensor> parts;
  for (const auto& [first, count] : {std::pair{0, 5}, {5, 4}, {9, 1}, {10, 1}})
    parts.push_back(model_->logits(model_->hidden_states(
        {one.ids.narrow(0, first, count), one.positions.narrow(0, first, count), {0, count}}, &cache)));
  change = distance(at::cat(parts), whole);
  tell("token by token with a cache it computes the same", change <= kSame, "logits differ by " + text_of(change));
}

/// A model whose weights are the folded ones must compute the same without any adapter.
void AdapterCheck::folding() {
  const torch::NoGradGuard no_grad;
  const auto plain = std::make_shared<Model>(model_->config());
  for (const Site* site : model_->sites()) {
    const auto weights = site->merged_weight(site->frozen());
    if (!weights) return tell("folding into weights", true, "says that no weights express it (" + site->path() + ")");
    plain->find(site->path())->set_frozen(*weights);
  }
  const double change = distance(logits(*plain), logits(*model_));
  tell("folded into weights it computes the same", change <= kSame, "logits differ by " + text_of(change));
}

void AdapterCheck::files() {
  const TempDirectory folder;
  save_adapter(folder.path(), *adapter_, *model_);
  const auto fresh = small_model();
  std::string detail = "bit-equal logits";
  bool same = false;
  try {
    const LoadedAdapter loaded = load_adapter(folder.path(), plugins_, *fresh, torch::kDouble);
    fresh->eval();
    same = torch::equal(logits(*fresh), logits(*model_));
    if (!same) detail = "logits differ by " + text_of(distance(logits(*fresh), logits(*model_)));
  } catch (const Error& error) {
    detail = error.what();
  }
  tell("saved and loaded it is the same", same, detail);
}

void AdapterCheck::disabled() {
  model_->enable_adapters(false);
  const bool same = torch::equal(logits(*model_), base_logits_);
  model_->enable_adapters(true);
  tell("disabled it leaves the base", same, same ? "bit-equal logits" : "logits differ");
}

void AdapterCheck::base() {
  for (const auto& [name, tensor] : model_->frozen())
    if (tensor.requires_grad() || tensor.grad().defined()) return tell("the base is untouched", false, name);
  tell("the base is untouched", base_hash(*model_) == hash_, "hash " + hash_);
}

}  // namespace

std::vector<CheckResult> selfcheck_adapter(Plugins& plugins, const std::string& name, const std::string& options) {
  return AdapterCheck(plugins, name, options).run();
}

}  // namespace peft
