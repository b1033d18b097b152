// What peft/train/precision.h promises.
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>

#include "peft/base/error.h"
#include "selfcheck/checks.h"
#include "selfcheck/small_run.h"

namespace peft {

namespace {

const std::vector<std::size_t> kExamples = {0, 1, 2};

/// The mean of the cross-entropy, through the precision.
Tensor loss_of(Precision& precision, const SmallRun& run, double factor = 1) {
  const Batch batch = run.batch(kExamples);
  return precision.forward([&] {
    const Pass pass(*run.model, batch);
    return pass.cross_entropy_sum() * (factor / static_cast<double>(batch.num_target_tokens()));
  });
}

/// Gradients of `passes` backward passes; nothing if they overflowed.
std::optional<std::vector<Tensor>> gradients_of(Precision& precision, const SmallRun& run, int passes,
                                                double factor = 1) {
  for (int i = 0; i < passes; ++i) precision.backward(loss_of(precision, run, factor));
  const bool ready = precision.unscale_gradients(run.parameters());
  std::vector<Tensor> gradients = run.take_gradients();
  return ready ? std::optional(gradients) : std::nullopt;
}

/// ‖a - b‖ / ‖b‖ over all tensors, in fp64; infinite if one is missing.
double relative_error(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (!a[i].defined()) return std::numeric_limits<double>::infinity();
    const Tensor wide = b[i].to(torch::kDouble);
    error += (a[i].to(torch::kDouble) - wide).square().sum().item<double>();
    norm += wide.square().sum().item<double>();
  }
  return std::sqrt(error / norm);
}

double epsilon(torch::Dtype dtype) {
  if (dtype == torch::kBFloat16) return 0x1p-7;
  if (dtype == torch::kHalf) return 0x1p-10;
  return dtype == torch::kFloat ? 0x1p-23 : 0x1p-52;
}

/// fp64's, with the same values.
std::vector<Tensor> exact_gradients() {
  const SmallRun run(torch::kDouble, torch::kDouble);
  const Batch batch = run.batch(kExamples);
  const Pass pass(*run.model, batch);
  (pass.cross_entropy_sum() / static_cast<double>(batch.num_target_tokens())).backward();
  return run.take_gradients();
}

std::string check_gradients(Precision& precision) {
  const SmallRun run(precision.base_dtype(), precision.adapter_dtype());
  const auto exact = exact_gradients();
  for (const int passes : {1, 2}) {
    auto found = gradients_of(precision, run, passes);
    if (!found) return "unscale_gradients reports an overflow for a small loss";
    for (Tensor& gradient : *found) {
      if (!gradient.defined()) return "a parameter got no gradient";
      if (gradient.scalar_type() != precision.adapter_dtype()) return "the gradients do not have adapter_dtype";
      gradient = gradient.to(torch::kDouble) / passes;
    }
    const double error = relative_error(*found, exact), limit = 64 * epsilon(precision.base_dtype()) + 1e-12;
    if (!(error <= limit))
      return "after " + std::to_string(passes) + " backward passes they differ by " + text_of_number(error) +
             " of their norm";
  }
  return "";
}

std::string check_overflow(Precision& precision) {
  const SmallRun run(precision.base_dtype(), precision.adapter_dtype());
  const auto found = gradients_of(precision, run, 1, std::numeric_limits<double>::infinity());
  if (!found) return "";  // the step is skipped
  return std::isfinite(global_norm(*found)) ? "infinite gradients became finite, and the step would be taken" : "";
}

}  // namespace

void run_checks(Kind<Precision>, const Subject& subject, Checks& checks) {
  const auto precision = subject.make<Precision>();
  const bool has_dtypes =
      checks.check("base_dtype and adapter_dtype are floating-point dtypes", "of model and adapter", [&] {
        precision->base_dtype();  // the two refuse any other
        precision->adapter_dtype();
        return std::string();
      });
  if (!has_dtypes) return;
  checks.check("gradients are those of fp64, up to the rounding of base_dtype", "one and two backward passes",
               [&] { return check_gradients(*precision); });
  checks.check("gradients that overflow are reported or stay infinite", "the step is skipped",
               [&] { return check_overflow(*subject.make<Precision>()); });
  checks.check("a forward pass without gradients returns its loss", "as in an evaluation", [&] {
    const torch::NoGradGuard no_grad;
    const SmallRun run(precision->base_dtype(), precision->adapter_dtype());
    const Tensor loss = precision->forward([] { return torch::full({}, 2.0); });
    return loss.item<double>() == 2 ? "" : "the value of the loss is another";
  });
  const SmallRun run(precision->base_dtype(), precision->adapter_dtype());
  check_state<Precision>(subject, checks, 9, [&run](Precision& object, int64_t step) -> std::vector<Tensor> {
    const double factor = step % 4 == 3 ? std::numeric_limits<double>::infinity() : 1;
    const auto found = gradients_of(object, run, 1, factor);
    return found ? *found : std::vector<Tensor>{};
  });
}

}  // namespace peft
