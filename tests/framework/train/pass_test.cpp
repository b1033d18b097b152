// Shows that the cross-entropy of a head that trains, computed in chunks of rows, and its gradients equal those of
// all logits at once.
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "ops/cross_entropy.h"
#include "peft/models/causal_lm.h"
#include "peft/train/pass.h"
#include "selfcheck/tiny_model.h"
#include "support/test.h"

using namespace peft;
using torch::Tensor;

TEST_CASE("the cross-entropy of a trained head equals that of all logits at once") {
  const auto model = test::tiny_model(test::tiny_config(), torch::kDouble);
  const Tensor weight = model->lm_head().make_trainable("weight", torch::kDouble);
  const Tensor norm = model->find("model.norm")->make_trainable("weight", torch::kDouble);
  for (const int64_t tokens : {kLogitRows / 2, 3 * kLogitRows + 5}) {
    const PackedTokens input = test::tiny_tokens(*model, tokens);
    const auto gradients = [&](const Tensor& loss) { return torch::autograd::grad({loss}, {weight, norm}); };
    const auto [hidden, targets] = model->target_rows(input, input.ids);
    const Tensor all = at::cross_entropy_loss(model->logits(hidden), targets, {}, at::Reduction::Sum);
    const auto expected = gradients(all);

    weight.mutable_grad().reset(), norm.mutable_grad().reset();
    const Tensor loss = Pass(*model, input, input.ids).cross_entropy_sum();
    loss.backward();
    CHECK(loss.item<double>() == Approx(all.item<double>()).epsilon(1e-12));
    CHECK(at::allclose(weight.grad(), expected[0], 1e-10, 1e-12));
    CHECK(at::allclose(norm.grad(), expected[1], 1e-10, 1e-12));
    const torch::NoGradGuard no_grad;
    CHECK(Pass(*model, input, input.ids).cross_entropy_sum().item<double>() ==
          Approx(all.item<double>()).epsilon(1e-12));
  }
}
