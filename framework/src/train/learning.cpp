#include "train/learning.h"

#include <algorithm>

#include "peft/base/error.h"
#include "train/digests.h"

namespace peft {

namespace {

constexpr const char* kUnchanged = "unchanged.";

}  // namespace

Learning::Learning(const Model& model)
    : model_(model), start_(digests_of(model.trainable())), changed_(start_.size(), false) {}

void Learning::step(double grad_norm, const std::vector<ParamGroup>& groups) {
  ++steps_;
  if (grad_norm != 0) {
    ++steps_with_gradient_;
    last_gradient_ = steps_;
  }
  if (std::ranges::any_of(groups, [](const ParamGroup& group) { return group.lr > 0; })) ++steps_with_rate_;
}

StringList Learning::unchanged() const {
  const NamedTensors now = model_.trainable();
  const StringList digests = digests_of(now);
  StringList names;
  for (std::size_t i = 0; i < now.size(); ++i) {
    if (digests[i] != start_[i]) changed_[i] = true;
    if (!changed_[i]) names.push_back(now[i].first);
  }
  return names;
}

LearningResult Learning::result() const {
  LearningResult result;
  result.tensors = start_.size();
  result.unchanged = unchanged();
  if (steps_ == 0) return result;
  const auto of_steps = [this](int64_t count) {
    return (count == 1 ? "the last step" : "the last " + std::to_string(count) + " steps");
  };
  if (steps_with_rate_ == 0)
    result.problem = "nothing was learned: the learning rate of every step was 0";
  else if (steps_with_gradient_ == 0)
    result.problem =
        "nothing was learned: the gradient norm of every step was 0, so the loss does not depend on the adapter; its "
        "scale may be 0 (lora_alpha)";
  else if (result.unchanged.size() == result.tensors)
    result.problem =
        "nothing was learned: no step changed a value of the adapter; the learning rate is too small for its dtype";
  else if (last_gradient_ < steps_)
    result.problem = "the gradient norm of " + of_steps(steps_ - last_gradient_) +
                     " was 0: the adapter no longer learns; lower optimizer.lr if the loss is high";
  return result;
}

std::string LearningResult::text() const {
  std::string text = std::to_string(tensors - unchanged.size()) + " of the adapter's " + std::to_string(tensors) +
                     " tensors " + (tensors - unchanged.size() == 1 ? "is" : "are") + " different from the start";
  constexpr std::size_t max_listed = 3;
  for (std::size_t i = 0; i < std::min(max_listed, unchanged.size()); ++i)
    text += (i == 0 ? "; unchanged: '" : ", '") + printable(unchanged[i]) + "'";
  if (unchanged.size() > max_listed) text += " and " + std::to_string(unchanged.size() - max_listed) + " more";
  return text;
}

void Learning::save(ScalarState& state) const {
  state.put("learning_steps", static_cast<double>(steps_));
  state.put("steps_with_gradient", static_cast<double>(steps_with_gradient_));
  state.put("steps_with_rate", static_cast<double>(steps_with_rate_));
  state.put("last_gradient", static_cast<double>(last_gradient_));
  for (const std::string& name : unchanged()) state.put(kUnchanged + name, 1);
}

void Learning::load(const ScalarState& state) {
  const NamedTensors parameters = model_.trainable();
  for (std::size_t i = 0; i < parameters.size(); ++i) changed_[i] = !state.has(kUnchanged + parameters[i].first);
  if (!state.has("learning_steps")) {  // a checkpoint of an earlier version: its steps are taken to have learned
    steps_ = steps_with_gradient_ = steps_with_rate_ = last_gradient_ = state.count("steps");
    return;
  }
  steps_ = state.count("learning_steps");
  steps_with_gradient_ = state.count("steps_with_gradient");
  steps_with_rate_ = state.count("steps_with_rate");
  last_gradient_ = state.count("last_gradient");
}

}  // namespace peft
