// The loss promises: where the head is not the frozen one, it and its gradients are those of all logits at once, though
// these exist for a few rows at a time.
#include <torch/torch.h>

#include "ops/kernels.h"
#include "peft/models/decoder.h"
#include "selfcheck/tiny_model.h"
#include "support/test.h"

using namespace peft;
using torch::Tensor;

TEST_CASE("the loss of a head that trains is the one of all logits") {
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
    const Tensor loss = model->loss_sum(input, input.ids);
    loss.backward();
    CHECK(loss.item<double>() == Approx(all.item<double>()).epsilon(1e-12));
    CHECK(at::allclose(weight.grad(), expected[0], 1e-10, 1e-12));
    CHECK(at::allclose(norm.grad(), expected[1], 1e-10, 1e-12));
    const torch::NoGradGuard no_grad;
    CHECK(model->loss_sum(input, input.ids).item<double>() == Approx(all.item<double>()).epsilon(1e-12));
  }
}
