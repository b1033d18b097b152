#include "budget.h"

#include <peft/base/error.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

namespace adalora {

using torch::Tensor;

std::string Schedule::schedule_error(int64_t total_steps) const {
  if (total_steps - tfinal > std::max<int64_t>(tinit, 1)) return "";
  return "a run of " + std::to_string(total_steps) +
         " steps leaves none to reduce ranks after tinit = " + std::to_string(tinit) +
         " and before tfinal = " + std::to_string(tfinal) +
         "; at least two are needed, the last of which makes the ranks final";
}

Budget::Budget(Schedule schedule, std::vector<Triplets> updates)
    : schedule_(schedule), updates_(std::move(updates)), importance_(updates_.size()) {}

void Budget::after_step(int64_t step, int64_t total_steps) {
  const torch::NoGradGuard no_grad;
  const auto& [init_r, target_r, tinit, tfinal, deltaT, beta1, beta2] = schedule_;
  if (is_final_) return apply_masks();
  const auto count = static_cast<int64_t>(updates_.size());
  const int64_t num_triplets = init_r * count, final_step = total_steps - tfinal;
  if (step < final_step) {
    update_importance();
    if (step <= tinit || step % deltaT != 0)
      return masks_.clear();  // the optimizer's step changed what they had set to 0
    const double remaining = 1 - static_cast<double>(step - tinit) / static_cast<double>(final_step - tinit);
    const auto surplus = static_cast<double>((init_r - target_r) * count);
    return allocate(std::min(
        num_triplets, static_cast<int64_t>(surplus * std::pow(remaining, 3) + static_cast<double>(target_r * count))));
  }
  if (!importance_.front().front().sensitivity.defined()) update_importance();  // all earlier steps were skipped
  allocate(target_r * count);
  is_final_ = true;
}

/// Smooths each element's sensitivity |p · gradient| and its uncertainty, the deviation from the smoothed value.
void Budget::update_importance() {
  const auto smooth = [](Tensor& mean, const Tensor& value, double beta) {
    mean = (mean.defined() ? beta * mean : torch::zeros_like(value)) + (1 - beta) * value;
  };
  for (std::size_t i = 0; i < updates_.size(); ++i) {
    const auto& [A, B, E] = updates_[i];
    std::size_t which = 0;
    for (const Tensor& parameter : {A, B, E}) {
      auto& [sensitivity, uncertainty] = importance_[i][which++];
      const Tensor value = (parameter * parameter.grad()).abs();
      smooth(sensitivity, value, schedule_.beta1);
      smooth(uncertainty, (value - sensitivity).abs(), schedule_.beta2);
    }
  }
}

/// Scores of an update's triplets, [r]: that of the value plus the means of those of its row and its column.
Tensor Budget::score(std::size_t update) const {
  const auto of = [&](std::size_t which) {
    return importance_[update][which].sensitivity * importance_[update][which].uncertainty;
  };
  return of(2).flatten() + (of(0).mean(1) + of(1).mean(0));
}

/// Keeps about `num_kept` of all triplets: those with a higher score than the best dropped one.
void Budget::allocate(int64_t num_kept) {
  std::vector<Tensor> scores;
  for (std::size_t i = 0; i < updates_.size(); ++i) scores.push_back(score(i));
  const Tensor all = at::cat(scores);
  const int64_t num_dropped = all.numel() - num_kept;
  masks_.clear();
  for (const Tensor& score : scores)
    masks_.push_back(num_dropped > 0 ? score > std::get<0>(all.kthvalue(num_dropped))
                                     : torch::ones_like(score, torch::kBool));
  apply_masks();
}

namespace {

constexpr const char* kIsFinal = "settled";
std::string name_of(std::size_t update, const char* what) { return std::to_string(update) + "." + what; }
constexpr std::array<std::pair<const char*, const char*>, 3> kNames = {
    {{"A.sensitivity", "A.uncertainty"}, {"B.sensitivity", "B.uncertainty"}, {"E.sensitivity", "E.uncertainty"}}};

}  // namespace

peft::StateDict Budget::state_dict() const {
  peft::StateDict state{{kIsFinal, torch::tensor(is_final_)}};
  for (std::size_t i = 0; i < updates_.size(); ++i) {
    if (!masks_.empty()) state[name_of(i, "mask")] = masks_[i];
    for (std::size_t which = 0; which < kNames.size(); ++which) {
      const auto& [sensitivity, uncertainty] = importance_[i][which];
      if (!sensitivity.defined()) continue;
      state[name_of(i, kNames[which].first)] = sensitivity;
      state[name_of(i, kNames[which].second)] = uncertainty;
    }
  }
  return state;
}

void Budget::load_state_dict(const peft::StateDict& state) {
  const bool has_importance = state.contains(name_of(0, kNames[0].first)),
             has_masks = state.contains(name_of(0, "mask"));
  peft::StateDict expected{{kIsFinal, torch::empty({}, torch::kBool)}};
  for (std::size_t i = 0; i < updates_.size(); ++i) {
    const auto& [A, B, E] = updates_[i];
    const std::array<Tensor, 3> parameters{A, B, E};
    if (has_masks) expected[name_of(i, "mask")] = E.flatten().to(torch::kBool);
    for (std::size_t which = 0; has_importance && which < kNames.size(); ++which)
      expected[name_of(i, kNames[which].first)] = expected[name_of(i, kNames[which].second)] = parameters[which];
  }
  if (const std::string problems = peft::describe_mismatch(expected, state); !problems.empty())
    throw peft::InputError("adalora: the saved state does not match the adapter's updates:" + problems);
  is_final_ = state.at(kIsFinal).item<bool>();
  if (is_final_ && !has_masks) throw peft::InputError("adalora: the saved state has final ranks, but no masks");
  masks_.clear();
  for (std::size_t i = 0; i < updates_.size(); ++i) {
    const Tensor& E = updates_[i].E;
    if (has_masks) masks_.push_back(state.at(name_of(i, "mask")).to(E.device(), torch::kBool));
    for (std::size_t which = 0; has_importance && which < kNames.size(); ++which)
      importance_[i][which] = {state.at(name_of(i, kNames[which].first)).to(E.device()),
                               state.at(name_of(i, kNames[which].second)).to(E.device())};
  }
}

void Budget::apply_masks() const {
  for (std::size_t i = 0; i < updates_.size(); ++i) updates_[i].E.masked_fill_(masks_[i].logical_not().unsqueeze(1), 0);
}

}  // namespace adalora
