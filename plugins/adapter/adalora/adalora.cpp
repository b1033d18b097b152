// AdaLoRA: Adaptive Budget Allocation (Zhang et al. 2023, arXiv 2303.10512): ΔW = s · B·diag(E)·A, like a singular
// value decomposition; training moves ranks to the updates where they matter most.
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/adapters/training_hooks.h>
#include <peft/base/error.h>
#include <peft/plugin.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "budget.h"

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's AdaLoraConfig.
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
  in.get("init_r", s.init_r, "initial rank of each update").in_size_limit(s.init_r);
  in.get("target_r", s.target_r, "mean final rank of the updates")
      .require(s.target_r > 0 && s.target_r <= s.init_r, "must be positive and at most init_r");
  constexpr int64_t max_steps = 1'000'000'000'000;
  in.get("tinit", s.tinit, "steps before the first reduction of ranks")
      .require(s.tinit >= 0 && s.tinit <= max_steps, "must be from 0 to 1e12");
  in.get("tfinal", s.tfinal, "steps with the final ranks")
      .require(s.tfinal >= 0 && s.tfinal <= max_steps, "must be from 0 to 1e12");
  in.get("deltaT", s.deltaT, "steps between allocations").require(s.deltaT > 0, "must be positive");
  for (auto [key, beta] : {std::pair("beta1", &s.beta1), std::pair("beta2", &s.beta2)})
    in.get(key, *beta, beta == &s.beta1 ? "smoothing of the importance" : "smoothing of its uncertainty")
        .require(*beta > 0 && *beta < 1, "must be between 0 and 1");
  in.get("total_step", o.total_step, "steps of the schedule; default: those of the run")
      .require(!o.total_step || (*o.total_step > 0 && *o.total_step <= max_steps), "must be from 1 to 1e12");
  if (o.total_step && *o.total_step > 0)
    if (const std::string problem = s.schedule_error(*o.total_step); !problem.empty())
      in.error("total_step", "is too small: " + problem);
}

AdaLoraOptions read(peft::Options& in) {
  AdaLoraOptions o;
  read_schedule(in, o);
  in.get("orth_reg_weight", o.orth_reg_weight, "weight in the loss of the orthogonality penalty of A and B")
      .require(o.orth_reg_weight >= 0, "must not be negative");
  in.get("lora_alpha", o.lora_alpha, "the update is scaled by lora_alpha / init_r")
      .require(o.lora_alpha > 0, "must be positive");
  in.get("lora_dropout", o.lora_dropout, "dropout probability of the update's input in training")
      .require(o.lora_dropout >= 0 && o.lora_dropout < 1, "must be at least 0 and below 1");
  int64_t r = 8;
  in.get("r", r, "not used, as in HF PEFT").require(r == 8, "is not used: give init_r and target_r");
  peft::read_targets(in, o.targets);
  in.get("rank_pattern", o.rank_pattern,
         "of a trained adapter: for each update, which of its init_r triplets are kept");
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
  /// The triplets that evaluation uses, [r] bool; undefined: all. It matters for optimizers that evaluate with averaged
  /// weights, in which dropped triplets are not zero.
  void set_mask(const Tensor& mask) { mask_ = mask; }
  /// ‖A·Aᵀ − I‖ + ‖Bᵀ·B − I‖, Frobenius norms.
  Tensor orthogonality_penalty() const {
    return distance_from_identity(at::mm(A_, A_.t())) + distance_from_identity(at::mm(B_.t(), B_));
  }

 protected:
  peft::LowRank factors() const override {
    return {A_ * (mask_.defined() && !is_training() ? E_ * mask_.unsqueeze(1) : E_), B_, scale_};
  }

 private:
  static Tensor distance_from_identity(const Tensor& M) { return (M - torch::eye(M.size(0), M.options())).norm(); }
  double scale_;
  Tensor A_, B_, E_;  // [r, in], [out, r], [r, 1]
  Tensor mask_;
};

class AdaLora final : public peft::TargetedAdapter, public peft::TrainingHooks {
 public:
  explicit AdaLora(AdaLoraOptions options)
      : TargetedAdapter("ADALORA", options.targets, options.init_lora_weights), options_(std::move(options)) {}
  peft::TrainingHooks* training_hooks() noexcept override { return this; }

 protected:
  void do_attach(peft::Model& model, torch::Dtype dtype) override;
  Tensor do_auxiliary_loss() const override;
  void do_after_step(const peft::TrainStep& step) override;
  bool do_depends_on_total_steps() const override { return !options_.total_step && options_.rank_pattern.empty(); }
  peft::StateDict do_state_dict() const override;
  void do_load_state_dict(const peft::StateDict& state) override { loaded_state_ = state; }
  peft::StateDict do_to_hf(const peft::Model& model) const override;
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override;
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override;
  void write_config(nlohmann::ordered_json& config) const override;

 private:
  peft::BoolListMap pattern() const;
  void make_budget();
  void update_masks();
  AdaLoraOptions options_;
  std::vector<std::string> paths_;
  std::vector<std::shared_ptr<AdaLoraLayer>> layers_;
  std::optional<adalora::Budget> budget_;
  int64_t total_steps_ = 0;       // of the run; 0 before the first step
  peft::StateDict loaded_state_;  // a checkpoint's, until attach
};

std::string key_of(const std::string& path) { return path + ".lora_E"; }

/// With a rank_pattern, which must list exactly these modules, the ranks are final.
void AdaLora::prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) {
  for (const peft::Site* site : sites) paths_.push_back(site->path());
  if (options_.rank_pattern.empty()) return;
  for (const auto& [key, mask] : options_.rank_pattern)
    if (!will_be_loaded() &&
        std::none_of(paths_.begin(), paths_.end(), [&](const std::string& path) { return key_of(path) == key; }))
      throw peft::ConfigError("[adapter] rank_pattern: '" + peft::printable(key) +
                              "' does not belong to an adapted module");
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

Tensor AdaLora::do_auxiliary_loss() const {
  if (options_.orth_reg_weight == 0) return {};
  Tensor sum;
  for (const auto& layer : layers_)
    sum = sum.defined() ? sum + layer->orthogonality_penalty() : layer->orthogonality_penalty();
  return sum * (options_.orth_reg_weight / static_cast<double>(2 * layers_.size()));
}

void AdaLora::make_budget() {
  std::vector<adalora::Triplets> updates;
  for (const auto& layer : layers_) updates.push_back(layer->triplets());
  budget_.emplace(options_.schedule, std::move(updates));
}

void AdaLora::update_masks() {
  const auto& masks = budget_->masks();
  for (std::size_t i = 0; i < layers_.size(); ++i) layers_[i]->set_mask(masks.empty() ? Tensor() : masks[i]);
}

constexpr const char* kTotalSteps = "run";

peft::StateDict AdaLora::do_state_dict() const {
  if (!budget_) return {};
  peft::StateDict state = budget_->state_dict();
  state[kTotalSteps] = torch::tensor(total_steps_, torch::kLong);
  return state;
}

void AdaLora::do_attach(peft::Model& model, torch::Dtype dtype) {
  TargetedAdapter::do_attach(model, dtype);
  if (loaded_state_.empty()) return;
  const auto total_steps = loaded_state_.extract(kTotalSteps);
  if (!total_steps || total_steps.mapped().numel() != 1)
    throw peft::InputError("adalora: the saved state lacks the run's number of steps");
  make_budget();
  budget_->load_state_dict(loaded_state_);
  update_masks();
  total_steps_ = total_steps.mapped().item<int64_t>();
  loaded_state_.clear();
}

void AdaLora::do_after_step(const peft::TrainStep& step) {
  if (!options_.rank_pattern.empty()) return;
  total_steps_ = options_.total_step.value_or(step.total_steps);
  if (!budget_) {
    if (const std::string problem = options_.schedule.schedule_error(total_steps_); !problem.empty())
      throw peft::ConfigError("[adapter] total_step: " + problem);
    make_budget();
  }
  budget_->after_step(step.step, total_steps_);
  update_masks();
}

/// Only the triplets that the budget keeps; the others are zero.
peft::StateDict AdaLora::do_to_hf(const peft::Model& model) const {
  peft::StateDict state = TargetedAdapter::do_to_hf(model);
  if (!budget_ || budget_->masks().empty()) return state;
  for (std::size_t i = 0; i < paths_.size(); ++i) {
    const Tensor retained = budget_->masks()[i].nonzero().flatten();
    for (const auto& [name, dim] : {std::pair("lora_A", 0), std::pair("lora_B", 1), std::pair("lora_E", 0)}) {
      Tensor& tensor = state.at(peft::hf_key(paths_[i], name));
      tensor = tensor.index_select(dim, retained);
    }
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
  if (const peft::BoolListMap masks = pattern(); !masks.empty()) config["rank_pattern"] = json(masks);
  config["target_r"] = target_r;
  config["tfinal"] = tfinal;
  config["tinit"] = tinit;
  // HF PEFT refuses a config without it or with too small a value: before the first step, use the smallest valid one.
  const int64_t min_steps = std::max<int64_t>(tinit, 1) + tfinal + 1;
  config["total_step"] = options_.total_step.value_or(total_steps_ > 0 ? total_steps_ : min_steps);
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<AdaLora>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("adalora", make); }

}  // namespace

PEFT_PLUGIN("adalora", "1.0.0", add)
