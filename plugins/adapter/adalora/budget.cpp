#include "budget.h"

#include <peft/base/error.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

namespace adalora {

using torch::Tensor;

std::string Schedule::unsuited(int64_t total) const {
  if (total - tfinal > std::max<int64_t>(tinit, 1)) return "";
  return "a run of " + std::to_string(total) +
         " steps leaves none for reducing ranks after tinit = " + std::to_string(tinit) +
         " and before tfinal = " + std::to_string(tfinal) +
         "; it needs at least two, the last of which settles the ranks";
}

Budget::Budget(Schedule schedule, std::vector<Triplets> updates)
    : schedule_(schedule), updates_(std::move(updates)), importance_(updates_.size()) {}

void Budget::after_step(int64_t step, int64_t total) {
  const torch::NoGradGuard no_grad;
  const auto& [init_r, target_r, tinit, tfinal, deltaT, beta1, beta2] = schedule_;
  if (settled_) return apply();
  const auto count = static_cast<int64_t>(updates_.size());
  const int64_t all = init_r * count, last = total - tfinal;
  if (step < last) {
    watch();
    if (step <= tinit || step % deltaT != 0)
      return masks_.clear();  // this step's optimizer moved what they had set to 0
    const double left = 1 - static_cast<double>(step - tinit) / static_cast<double>(last - tinit);
    const auto more = static_cast<double>((init_r - target_r) * count);
    return allocate(
        std::min(all, static_cast<int64_t>(more * std::pow(left, 3) + static_cast<double>(target_r * count))));
  }
  if (!importance_.front().front().sensitivity.defined()) watch();  // every step before this one was skipped
  allocate(target_r * count);
  settled_ = true;
}

/// Smooths each element's sensitivity |p · gradient|, and how far it swings.
void Budget::watch() {
  const auto smooth = [](Tensor& mean, const Tensor& now, double beta) {
    mean = (mean.defined() ? beta * mean : torch::zeros_like(now)) + (1 - beta) * now;
  };
  for (std::size_t i = 0; i < updates_.size(); ++i) {
    const auto& [A, B, E] = updates_[i];
    std::size_t which = 0;
    for (const Tensor& parameter : {A, B, E}) {
      auto& [sensitivity, uncertainty] = importance_[i][which++];
      const Tensor now = (parameter * parameter.grad()).abs();
      smooth(sensitivity, now, schedule_.beta1);
      smooth(uncertainty, (now - sensitivity).abs(), schedule_.beta2);
    }
  }
}

/// Of each triplet of an update, [r]: its value's score and the means of its row's and its column's.
Tensor Budget::score(std::size_t update) const {
  const auto of = [&](std::size_t which) {
    return importance_[update][which].sensitivity * importance_[update][which].uncertainty;
  };
  return of(2).flatten() + (of(0).mean(1) + of(1).mean(0));
}

/// Keeps about `kept` triplets of all: those above the score of the last that is dropped.
void Budget::allocate(int64_t kept) {
  std::vector<Tensor> scores;
  for (std::size_t i = 0; i < updates_.size(); ++i) scores.push_back(score(i));
  const Tensor all = at::cat(scores);
  const int64_t dropped = all.numel() - kept;
  masks_.clear();
  for (const Tensor& score : scores)
    masks_.push_back(dropped > 0 ? score > std::get<0>(all.kthvalue(dropped)) : torch::ones_like(score, torch::kBool));
  apply();
}

namespace {

constexpr const char* kSettled = "settled";
std::string name_of(std::size_t update, const char* what) { return std::to_string(update) + "." + what; }
constexpr std::array<std::pair<const char*, const char*>, 3> kNames = {
    {{"A.sensitivity", "A.uncertainty"}, {"B.sensitivity", "B.uncertainty"}, {"E.sensitivity", "E.uncertainty"}}};

}  // namespace

peft::StateDict Budget::state_dict() const {
  peft::StateDict state{{kSettled, torch::tensor(settled_)}};
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
  const bool watched = state.contains(name_of(0, kNames[0].first)), masked = state.contains(name_of(0, "mask"));
  peft::StateDict wanted{{kSettled, torch::empty({}, torch::kBool)}};
  for (std::size_t i = 0; i < updates_.size(); ++i) {
    const auto& [A, B, E] = updates_[i];
    const std::array<Tensor, 3> parameters{A, B, E};
    if (masked) wanted[name_of(i, "mask")] = E.flatten().to(torch::kBool);
    for (std::size_t which = 0; watched && which < kNames.size(); ++which)
      wanted[name_of(i, kNames[which].first)] = wanted[name_of(i, kNames[which].second)] = parameters[which];
  }
  if (const std::string problems = peft::describe_mismatch(wanted, state); !problems.empty())
    throw peft::InputError("adalora: the saved budget is not of these updates:" + problems);
  settled_ = state.at(kSettled).item<bool>();
  if (settled_ && !masked) throw peft::InputError("adalora: the saved budget is settled, but has no masks");
  masks_.clear();
  for (std::size_t i = 0; i < updates_.size(); ++i) {
    const Tensor& E = updates_[i].E;
    if (masked) masks_.push_back(state.at(name_of(i, "mask")).to(E.device(), torch::kBool));
    for (std::size_t which = 0; watched && which < kNames.size(); ++which)
      importance_[i][which] = {state.at(name_of(i, kNames[which].first)).to(E.device()),
                               state.at(name_of(i, kNames[which].second)).to(E.device())};
  }
}

void Budget::apply() const {
  for (std::size_t i = 0; i < updates_.size(); ++i)
    Tensor(updates_[i].E).masked_fill_(masks_[i].logical_not().unsqueeze(1), 0);
}

}  // namespace adalora
