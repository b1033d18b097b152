// What peft/train/objective.h promises.
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <numeric>

#include "nn/module_check.h"
#include "selfcheck/checks.h"
#include "selfcheck/small_run.h"

namespace peft {

namespace {

constexpr double kTolerance = 1e-9;  // sums in another order, in fp64

using Indices = std::vector<std::size_t>;

struct LossAndGradients {
  double loss = 0;
  std::vector<Tensor> gradients;
};

class ObjectiveCheck {
 public:
  explicit ObjectiveCheck(const Subject& subject) : subject_(subject), all_(run_.data.examples.size()) {
    std::iota(all_.begin(), all_.end(), 0);
  }
  std::string check_loss() const;
  std::string check_parts() const;
  std::string check_order() const;
  std::string check_evaluation() const;
  std::string check_likelihood(const Objective& objective) const;
  const SmallRun& run() const { return run_; }
  Totals totals(const Objective& objective) const { return objective.totals(run_.batch(all_), false); }
  /// The share of `examples` in the loss of all.
  LossAndGradients share(Objective& objective, const Indices& examples) const {
    const Batch batch = run_.batch(examples);
    const Tensor loss = objective.loss(Pass(*run_.model, batch), totals(objective));
    if (loss.requires_grad()) loss.backward();
    return {loss.item<double>(), run_.take_gradients()};
  }
  const Indices& all() const { return all_; }

 private:
  static std::string differs(const LossAndGradients& found, const LossAndGradients& expected);
  const Subject& subject_;
  SmallRun run_{torch::kDouble, torch::kDouble};
  Indices all_;
};

std::string ObjectiveCheck::differs(const LossAndGradients& found, const LossAndGradients& expected) {
  if (!(std::abs(found.loss - expected.loss) <= kTolerance * std::abs(expected.loss) + 1e-300))
    return "the loss is " + text_of_number(found.loss) + " instead of " + text_of_number(expected.loss);
  for (std::size_t i = 0; i < expected.gradients.size(); ++i)
    if (!at::allclose(found.gradients[i], expected.gradients[i], kTolerance,
                      kTolerance * expected.gradients[i].abs().max().item<double>()))
      return "the gradients differ";
  return "";
}

std::string ObjectiveCheck::check_loss() const {
  const auto objective = subject_.make<Objective>();
  const Batch batch = run_.batch(all_);
  const Pass pass(*run_.model, batch);
  const Tensor loss = objective->loss(pass, totals(*objective));
  if (!std::isfinite(loss.item<double>())) return "it is " + text_of_number(loss.item<double>());
  if (!loss.requires_grad()) return "it has no gradient";
  const ParameterWatch watch(run_.model->sites(), run_.model->trainable());
  const std::string unknown = watch.unknown(leaves_between({}, {gradient_edge_of(loss)}));
  if (!unknown.empty()) return "it depends on a tensor that is not a parameter of an adapter: " + unknown;
  loss.backward();
  for (const Tensor& gradient : run_.take_gradients())
    if (!gradient.defined() || !at::isfinite(gradient).all().item<bool>())
      return "a parameter of the model gets no gradient, or one that is not finite";
  return "";
}

/// Of two micro-batches, also of unequal sizes.
std::string ObjectiveCheck::check_parts() const {
  const LossAndGradients expected = share(*subject_.make<Objective>(), all_);
  for (const std::size_t size : {all_.size() / 2, std::size_t{1}}) {
    const auto objective = subject_.make<Objective>();
    const Indices first(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(size)),
        second(all_.begin() + static_cast<std::ptrdiff_t>(size), all_.end());
    Totals sum;
    for (const Indices& part : {first, second}) add_totals(sum, objective->totals(run_.batch(part), false));
    const Totals wanted = totals(*objective);
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (!(std::abs(sum.at(i) - wanted[i]) <= kTolerance * std::abs(wanted[i])))
        return "the totals of two batches do not add up to those of one";
    LossAndGradients both = share(*objective, first);
    const LossAndGradients other = share(*objective, second);
    both.loss += other.loss;
    for (std::size_t i = 0; i < both.gradients.size(); ++i) both.gradients[i] = both.gradients[i] + other.gradients[i];
    const std::string problem = differs(both, expected);
    if (!problem.empty()) return "in two batches " + problem;
  }
  return "";
}

std::string ObjectiveCheck::check_order() const {
  const Indices reversed(all_.rbegin(), all_.rend());
  const std::string problem =
      differs(share(*subject_.make<Objective>(), reversed), share(*subject_.make<Objective>(), all_));
  return problem.empty() ? "" : "with the examples in another order " + problem;
}

std::string ObjectiveCheck::check_evaluation() const {
  const torch::NoGradGuard no_grad;
  const auto objective = subject_.make<Objective>();
  const auto state = copy_of(objective->state_dict());
  const auto figures_of = [&](int64_t batch_size) {
    Sums sums;
    for (const Indices& examples : evaluation_batches(run_.data, batch_size)) {
      const Batch batch = run_.batch(examples);
      objective->evaluate(Pass(*run_.model, batch), sums);
    }
    return objective->figures(sums);
  };
  const Figures complete = figures_of(static_cast<int64_t>(all_.size())), parts = figures_of(1);
  if (parts.size() != complete.size()) return "the number of figures depends on the batch size";
  for (std::size_t i = 0; i < complete.size(); ++i) {
    const auto& [name, value] = complete[i];
    if (!std::isfinite(value)) return "the figure '" + name + "' is " + text_of_number(value);
    if (parts[i].first != name || !(std::abs(parts[i].second - value) <= kTolerance * std::abs(value)))
      return "the figure '" + name + "' depends on the batch size";
  }
  const std::string changed = difference(state, objective->state_dict());
  return changed.empty() ? "" : "an evaluation changes the state: " + changed;
}

std::string ObjectiveCheck::check_likelihood(const Objective& objective) const {
  const auto fresh = subject_.make<Objective>();
  const Batch batch = run_.batch(all_);
  const Pass pass(*run_.model, batch);
  const double loss = fresh->loss(pass, totals(objective)).item<double>() * totals(objective).front();
  const double expected = pass.cross_entropy_sum().item<double>();
  if (std::abs(loss - expected) <= kTolerance * std::abs(expected)) return "";
  return "the loss times its total is " + text_of_number(loss) + ", the cross-entropy of the labels " +
         text_of_number(expected);
}

}  // namespace

void run_checks(Kind<Objective>, const Subject& subject, Checks& checks) {
  const auto objective = subject.make<Objective>();
  const ObjectiveCheck check(subject);
  checks.check("the loss is a finite number whose gradient reaches the adapter", "and nothing else",
               [&] { return check.check_loss(); });
  checks.check("the losses of micro-batches add up to that of one batch", "gradients, too",
               [&] { return check.check_parts(); });
  checks.check("the order of the examples does not matter", "the same loss", [&] { return check.check_order(); });
  checks.check("an evaluation does not depend on the batch size", "figures are finite, the state does not change",
               [&] { return check.check_evaluation(); });
  if (objective->is_likelihood())
    checks.check("the loss is the negative log-likelihood, as declared", "is_likelihood is true",
                 [&] { return check.check_likelihood(*objective); });
  checks.check("it reads a record format", "[data] format",
               [&] { return objective->formats().empty() ? "formats returns none" : ""; });
  check_state<Objective>(subject, checks, 4, [&check](Objective& object, int64_t step) {
    const auto at = static_cast<std::size_t>(step);
    LossAndGradients result = check.share(object, {at, at + 1});
    result.gradients.push_back(torch::tensor(result.loss, torch::kDouble));
    return result.gradients;
  });
}

}  // namespace peft
