#include "peft/train/evaluate.h"

#include <torch/torch.h>

#include <stdexcept>

#include "peft/base/error.h"

namespace peft {

double Evaluation::figure(const std::string& name) const {
  for (const auto& [key, value] : figures)
    if (key == name) return value;
  throw std::out_of_range("the objective has no figure '" + name + "'");
}

Evaluation evaluate(CausalLm& model, Precision& precision, const Objective& objective, const Dataset& data,
                    int64_t batch_size) {
  const torch::NoGradGuard no_grad;
  model.eval();
  Totals totals;
  Sums sums;
  for (const auto& examples : evaluation_batches(data, batch_size)) {
    const Batch batch = make_batch(data, examples);
    add_totals(totals, objective.totals(batch, model.virtual_tokens() > 0));
    precision.forward([&] {
      const Pass pass(model, batch);
      objective.evaluate(pass, sums);
      return at::zeros({});  // a precision may expect a defined result
    });
  }
  if (totals.empty() || totals.front() == 0) throw InputError("there is nothing to evaluate: no target tokens");
  Evaluation result;
  result.figures = objective.figures(sums);
  result.loss = result.figures.front().second;
  return result;
}

}  // namespace peft
