// AdaLoRA: Adaptive Budget Allocation (Zhang et al. 2023, arXiv 2303.10512): ΔW = s · B·diag(E)·A, like a singular
// value decomposition, whose ranks move to where they count while it trains.
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>
#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "budget.h"

namespace {

using torch::Tensor;

/// HF PEFT's AdaLoraConfig: its names, its defaults.
struct AdaLoraOptions {
  adalora::Schedule schedule;
  double lora_alpha = 8;
  double lora_dropout = 0;
  double orth_reg_weight = 0.5;
  std::optional<int64_t> total_step;
  peft::BoolListMap rank_pattern;
  bool init_lora_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

void read_schedule(peft::Options& in, AdaLoraOptions& o) {
  adalora::Schedule& s = o.schedule;
  in.get("init_r", s.init_r, "rank of each update at first").in_size_limit(s.init_r);
  in.get("target_r", s.target_r, "mean rank of the updates at the end")
      .require(s.target_r > 0 && s.target_r <= s.init_r, "must be positive and at most init_r");
  in.get("tinit", s.tinit, "steps before ranks are reduced").require(s.tinit >= 0, "must not be negative");
  in.get("tfinal", s.tfinal, "steps after ranks are settled").require(s.tfinal >= 0, "must not be negative");
  in.get("deltaT", s.deltaT, "steps between two allocations").require(s.deltaT > 0, "must be positive");
  for (auto [key, beta] : {std::pair("beta1", &s.beta1), std::pair("beta2", &s.beta2)})
    in.get(key, *beta, beta == &s.beta1 ? "smoothing of importance" : "smoothing of its uncertainty")
        .require(*beta > 0 && *beta < 1, "must be between 0 and 1");
  in.get("total_step", o.total_step, "steps that the schedule is made for; absent: the run's");
  if (o.total_step)
    if (const std::string wrong = s.unsuited(*o.total_step); !wrong.empty())
      in.error("total_step", "is too small: " + wrong);
}

AdaLoraOptions read(peft::Options& in) {
  AdaLoraOptions o;
  read_schedule(in, o);
  in.get("orth_reg_weight", o.orth_reg_weight, "weight in the loss of how far A and B are from orthogonal")
      .require(o.orth_reg_weight >= 0, "must not be negative");
  in.get("lora_alpha", o.lora_alpha, "the update is scaled by lora_alpha / init_r")
      .require(o.lora_alpha > 0, "must be positive");
  in.get("lora_dropout", o.lora_dropout, "probability of dropping an element of the update's input while training")
      .require(o.lora_dropout >= 0 && o.lora_dropout < 1, "must be at least 0 and below 1");
  int64_t r = 8;
  in.get("r", r, "not used, as in PEFT").require(r == 8, "is not used: give init_r and target_r");
  peft::read_targets(in, o.targets);
  in.get("rank_pattern", o.rank_pattern, "of a trained adapter: which of the init_r triplets each update keeps");
  in.get("init_lora_weights", o.init_lora_weights, "true: A and B normal, E zero; false: all normal, for tests");
  return o;
}

class AdaLoraLayer final : public peft::FactoredLayer {
 public:
  AdaLoraLayer(const peft::Linear& site, int64_t rank, const AdaLoraOptions& o, const at::TensorOptions& tensor_options)
      : FactoredLayer(o.lora_dropout), scale_(o.lora_alpha / (static_cast<double>(o.schedule.init_r) + 1e-5)) {
    const double std = o.init_lora_weights ? 0.02 : 1;
    A_ = register_parameter("lora_A", peft::init::normal({rank, site.in_features()}, std, tensor_options));
    B_ = register_parameter("lora_B", peft::init::normal({site.out_features(), rank}, std, tensor_options));
    E_ = register_parameter("lora_E", o.init_lora_weights ? peft::init::zeros({rank, 1}, tensor_options)
                                                          : peft::init::normal({rank, 1}, 1, tensor_options));
  }
  adalora::Triplets triplets() const { return {A_, B_, E_}; }
  /// Which triplets an allocation has left, [r]; undefined: all. An optimizer that evaluates a mean of its steps has
  /// others in it, too.
  void keep(const Tensor& mask) { mask_ = mask; }
  /// ‖A·Aᵀ − 1‖ + ‖Bᵀ·B − 1‖, Frobenius.
  Tensor skewness() const { return away(at::mm(A_, A_.t())) + away(at::mm(B_.t(), B_)); }

 protected:
  peft::LowRank factors() const override {
    return {A_ * (mask_.defined() && !is_training() ? E_ * mask_.unsqueeze(1) : E_), B_, scale_};
  }

 private:
  static Tensor away(const Tensor& square) { return (square - torch::eye(square.size(0), square.options())).norm(); }
  double scale_;
  Tensor A_, B_, E_;  // [r, in], [out, r], [r, 1]
  Tensor mask_;
};

class AdaLora final : public peft::TargetedAdapter {
 public:
  explicit AdaLora(AdaLoraOptions options)
      : TargetedAdapter("ADALORA", options.targets, options.init_lora_weights), options_(std::move(options)) {}
  Tensor auxiliary_loss() const override;
  void attach(peft::Model& model, torch::Dtype dtype) override;
  void after_step(const peft::TrainStep& position) override;
  bool depends_on_total_steps() const override { return !options_.total_step && options_.rank_pattern.empty(); }
  peft::StateDict state_dict() const override;
  void load_state_dict(const peft::StateDict& state) override { saved_ = state; }
  peft::StateDict to_hf(const peft::Model& model) const override;

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override;
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override;
  void write_config(nlohmann::ordered_json& config) const override;

 private:
  peft::BoolListMap pattern() const;
  void begin_budget();
  void keep_masks();
  AdaLoraOptions options_;
  std::vector<std::string> paths_;
  std::vector<std::shared_ptr<AdaLoraLayer>> layers_;
  std::optional<adalora::Budget> budget_;
  int64_t run_ = 0;        // steps of the run, once it is known
  peft::StateDict saved_;  // of a checkpoint, until there are layers
};

std::string key_of(const std::string& path) { return path + ".lora_E"; }

/// With a pattern, which must tell of just these modules, ranks are settled.
void AdaLora::prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) {
  for (const peft::Site* site : sites) paths_.push_back(site->path());
  if (options_.rank_pattern.empty()) return;
  for (const auto& [key, mask] : options_.rank_pattern)
    if (std::none_of(paths_.begin(), paths_.end(), [&](const std::string& path) { return key_of(path) == key; }))
      throw peft::ConfigError("[adapter] rank_pattern: '" + peft::printable(key) + "' is of no adapted module");
  for (const std::string& path : paths_) {
    const auto mask = options_.rank_pattern.find(key_of(path));
    if (mask == options_.rank_pattern.end() || std::ssize(mask->second) != options_.schedule.init_r)
      throw peft::ConfigError("[adapter] rank_pattern: '" + key_of(path) +
                              "' must have init_r = " + std::to_string(options_.schedule.init_r) + " booleans");
  }
}

std::shared_ptr<peft::AdapterLayer> AdaLora::make_layer(const peft::Linear& site, std::size_t,
                                                        const at::TensorOptions& tensor_options) {
  int64_t rank = options_.schedule.init_r;
  if (const auto mask = options_.rank_pattern.find(key_of(site.path())); mask != options_.rank_pattern.end())
    rank = std::count(mask->second.begin(), mask->second.end(), true);
  return layers_.emplace_back(std::make_shared<AdaLoraLayer>(site, rank, options_, tensor_options));
}

Tensor AdaLora::auxiliary_loss() const {
  if (options_.orth_reg_weight == 0) return {};
  Tensor sum;
  for (const auto& layer : layers_) sum = sum.defined() ? sum + layer->skewness() : layer->skewness();
  return sum * (options_.orth_reg_weight / static_cast<double>(2 * layers_.size()));
}

void AdaLora::begin_budget() {
  std::vector<adalora::Triplets> updates;
  for (const auto& layer : layers_) updates.push_back(layer->triplets());
  budget_.emplace(options_.schedule, std::move(updates));
}

void AdaLora::keep_masks() {
  const auto& masks = budget_->masks();
  for (std::size_t i = 0; i < layers_.size(); ++i) layers_[i]->keep(masks.empty() ? Tensor() : masks[i]);
}

constexpr const char* kRun = "run";

peft::StateDict AdaLora::state_dict() const {
  if (!budget_) return {};
  peft::StateDict state = budget_->state_dict();
  state[kRun] = torch::tensor(run_, torch::kLong);
  return state;
}

void AdaLora::attach(peft::Model& model, torch::Dtype dtype) {
  TargetedAdapter::attach(model, dtype);
  if (saved_.empty()) return;
  const auto run = saved_.extract(kRun);
  if (!run || run.mapped().numel() != 1)
    throw peft::InputError("adalora: the saved state does not tell the run's steps");
  begin_budget();
  budget_->load(saved_);
  keep_masks();
  run_ = run.mapped().item<int64_t>();
  saved_.clear();
}

void AdaLora::after_step(const peft::TrainStep& position) {
  if (!options_.rank_pattern.empty()) return;
  run_ = options_.total_step.value_or(position.total);
  if (!budget_) {
    if (const std::string wrong = options_.schedule.unsuited(run_); !wrong.empty())
      throw peft::ConfigError("[adapter] total_step: " + wrong);
    begin_budget();
  }
  budget_->after_step(position.step, run_);
  keep_masks();
}

/// What the budget has left: the other triplets count as zero.
peft::StateDict AdaLora::to_hf(const peft::Model& model) const {
  peft::StateDict state = TargetedAdapter::to_hf(model);
  if (!budget_ || budget_->masks().empty()) return state;
  for (std::size_t i = 0; i < paths_.size(); ++i) {
    const std::string prefix = "base_model.model." + paths_[i] + ".";
    const Tensor kept = budget_->masks()[i].nonzero().flatten();
    for (const auto& [name, dim] : {std::pair("lora_A", 0), std::pair("lora_B", 1), std::pair("lora_E", 0)})
      state[prefix + name] = state.at(prefix + name).index_select(dim, kept);
  }
  return state;
}

peft::BoolListMap AdaLora::pattern() const {
  if (!budget_ || budget_->masks().empty()) return options_.rank_pattern;
  peft::BoolListMap pattern;
  for (std::size_t i = 0; i < paths_.size(); ++i) {
    const Tensor mask = budget_->masks()[i].cpu();
    pattern[key_of(paths_[i])] = peft::BoolList(mask.data_ptr<bool>(), mask.data_ptr<bool>() + mask.numel());
  }
  return pattern;
}

void AdaLora::write_config(nlohmann::ordered_json& config) const {
  using json = nlohmann::ordered_json;
  const auto& [init_r, target_r, tinit, tfinal, deltaT, beta1, beta2] = options_.schedule;
  for (const char* off : {"alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "kasa_config",
                          "layer_replication", "lora_ga_config", "megatron_config", "monteclora_config",
                          "target_parameters", "trainable_token_indices", "use_bdlora", "velora_config"})
    config[off] = nullptr;
  for (const char* off : {"ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_dora", "use_qalora", "use_rslora"})
    config[off] = false;
  config["alpha_pattern"] = json::object();
  config["bias"] = "none";
  config["loftq_config"] = json::object();
  config["megatron_core"] = "megatron.core";
  config["qalora_group_size"] = 16;
  config["r"] = 8;
  config["beta1"] = beta1;
  config["beta2"] = beta2;
  config["deltaT"] = deltaT;
  config["init_lora_weights"] = options_.init_lora_weights;
  config["init_r"] = init_r;
  config["lora_alpha"] = peft::config_number(options_.lora_alpha);
  config["lora_dropout"] = options_.lora_dropout;
  config["orth_reg_weight"] = options_.orth_reg_weight;
  config["rank_pattern"] = nullptr;
  if (const peft::BoolListMap kept = pattern(); !kept.empty()) config["rank_pattern"] = json(kept);
  config["target_r"] = target_r;
  config["tfinal"] = tfinal;
  config["tinit"] = tinit;
  // PEFT loads no config without it, nor one that is too small: before a run tells, the smallest that will do.
  const int64_t least = std::max<int64_t>(tinit, 1) + tfinal + 1;
  config["total_step"] = options_.total_step.value_or(run_ > 0 ? run_ : least);
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<AdaLora>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("adalora", make); }

}  // namespace

PEFT_PLUGIN("adalora", "1.0.0", add)
