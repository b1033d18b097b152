// A model with replicated layers computes the same as a deeper model with copies of the weights, holds these weights
// once, and knows where each site's weights come from. Invalid ranges are refused, and so is replication after an
// adapter.
#include <torch/torch.h>

#include "peft/base/error.h"
#include "peft/models/causal_lm.h"
#include "selfcheck/tiny_model.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;
using torch::Tensor;

namespace {

Tensor logits(const CausalLm& model) { return model.logits(model.hidden_states(test::tiny_tokens(model, 9))); }

std::shared_ptr<CausalLm> three_layers() { return test::tiny_model(test::tiny_config(3, true), torch::kDouble); }

class Nothing final : public AdapterLayer {
 public:
  Tensor forward(const Tensor& x, const Next& next) override { return next(x); }
};

}  // namespace

TEST_CASE("replicated layers compute the same as a deeper model, and share their weights") {
  const torch::NoGradGuard no_grad;
  const auto base = three_layers(), model = three_layers();
  const Site* head = &model->lm_head();
  model->replicate_layers({{1, 3}, {0, 2}});
  CHECK(model->config().num_hidden_layers == 4);
  CHECK(model->source_layers() == std::vector<int64_t>{1, 2, 0, 1});
  CHECK(model->replicated());
  CHECK(&model->lm_head() == head);

  const auto deeper = std::make_shared<CausalLm>(test::tiny_config(4, true));
  for (Site* site : deeper->sites()) {
    const Site& from = *model->find(site->path());
    site->load_base_weight(from.base_weight(), from.base_bias());
  }
  CHECK(torch::equal(logits(*model), logits(*deeper)));
  CHECK_FALSE(torch::equal(logits(*model), logits(*base)));
  for (const Site* site : model->sites()) {
    const Tensor weight = site->dense(), stored = base->find(site->checkpoint_path())->dense();
    CHECK(weight.defined() == stored.defined());
    if (weight.defined()) CHECK(torch::equal(weight, stored));
  }
  CHECK(model->find("model.layers.3.mlp.up_proj")->dense().data_ptr() ==
        model->find("model.layers.0.mlp.up_proj")->dense().data_ptr());

  std::set<std::string> names, once;
  for (const auto& [name, tensor] : base->frozen()) names.insert(name);
  for (const auto& [name, tensor] : model->frozen()) CHECK(once.insert(name).second);
  CHECK(once == names);
  CHECK(model->checkpointing().size() == 4);
}

TEST_CASE("replicated layers can be replicated again, and left out") {
  const torch::NoGradGuard no_grad;
  const auto twice = three_layers(), once = three_layers();
  twice->replicate_layers({{0, 2}, {0, 2}});
  twice->replicate_layers({{1, 4}});
  once->replicate_layers({{1, 2}, {0, 2}});
  CHECK(twice->source_layers() == std::vector<int64_t>{1, 0, 1});
  CHECK(torch::equal(logits(*twice), logits(*once)));
}

TEST_CASE("an invalid range is refused, and so is replication after an adapter") {
  const auto model = three_layers();
  const auto message = [&](const std::vector<std::pair<int64_t, int64_t>>& ranges) {
    return message_of<ConfigError>([&] { model->replicate_layers(ranges); });
  };
  CHECK(has(message({}), "layer_replication: contains no layer"));
  CHECK(has(message({{0, 2}, {2, 4}}), "[2, 4] is not a range of the model's 3 layers"));
  for (const auto& range : {std::pair<int64_t, int64_t>{-1, 2}, {2, 2}, {2, 1}, {0, INT64_MAX}})
    CHECK(has(message({range}), "is not a range"));
  CHECK(has(message(std::vector<std::pair<int64_t, int64_t>>(4000, {0, 3})), "more than 10000 layers"));
  CHECK(model->config().num_hidden_layers == 3);
  model->find("model.norm")->attach("other", std::make_shared<Nothing>());
  CHECK(has(message({{0, 3}}), "another adapter is already on 'model.norm'"));
}
