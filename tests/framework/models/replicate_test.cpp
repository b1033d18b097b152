// A model whose layers are replicated promises: it computes what a deeper model with copies of the weights does; it has
// these weights once; its sites know where they come from; and what is no range, or too late, is refused.
#include <torch/torch.h>

#include "peft/base/error.h"
#include "peft/models/decoder.h"
#include "selfcheck/tiny_model.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;
using torch::Tensor;

namespace {

Tensor logits(const Model& model) { return model.logits(model.hidden_states(test::tiny_tokens(model, 9))); }

std::shared_ptr<Model> three_layers() { return test::tiny_model(test::tiny_config(3, true), torch::kDouble); }

class Nothing final : public AdapterLayer {
 public:
  Tensor forward(const Tensor& x, const Next& next) override { return next(x); }
};

}  // namespace

TEST_CASE("replicated layers are those of a deeper model, with their weights but once") {
  const torch::NoGradGuard no_grad;
  const auto base = three_layers(), model = three_layers();
  const Site* head = &model->lm_head();
  model->replicate_layers({{1, 3}, {0, 2}});
  CHECK(model->config().num_hidden_layers == 4);
  CHECK(model->source_layers() == std::vector<int64_t>{1, 2, 0, 1});
  CHECK(model->replicated());
  CHECK(&model->lm_head() == head);

  const auto deeper = std::make_shared<Model>(test::tiny_config(4, true));
  for (Site* site : deeper->sites()) site->set_frozen(model->find(site->path())->frozen());
  CHECK(torch::equal(logits(*model), logits(*deeper)));
  CHECK_FALSE(torch::equal(logits(*model), logits(*base)));
  for (const Site* site : model->sites()) {
    const WeightAndBias &own = site->frozen(), &stored = base->find(site->checkpoint_path())->frozen();
    CHECK(own.weight.defined() == stored.weight.defined());
    if (own.weight.defined()) CHECK(torch::equal(own.weight, stored.weight));
  }
  CHECK(model->find("model.layers.3.mlp.up_proj")->frozen().weight.data_ptr() ==
        model->find("model.layers.0.mlp.up_proj")->frozen().weight.data_ptr());

  std::set<std::string> names, once;
  for (const auto& [name, tensor] : base->frozen()) names.insert(name);
  for (const auto& [name, tensor] : model->frozen()) CHECK(once.insert(name).second);
  CHECK(once == names);
  CHECK(model->checkpointing().size() == 4);
}

TEST_CASE("layers can be replicated again, and left out") {
  const torch::NoGradGuard no_grad;
  const auto twice = three_layers(), once = three_layers();
  twice->replicate_layers({{0, 2}, {0, 2}});
  twice->replicate_layers({{1, 4}});
  once->replicate_layers({{1, 2}, {0, 2}});
  CHECK(twice->source_layers() == std::vector<int64_t>{1, 0, 1});
  CHECK(torch::equal(logits(*twice), logits(*once)));
}

TEST_CASE("what is no range of layers, or comes behind an adapter, is refused") {
  const auto model = three_layers();
  const auto told = [&](const std::vector<std::pair<int64_t, int64_t>>& ranges) {
    return message_of<ConfigError>([&] { model->replicate_layers(ranges); });
  };
  CHECK(has(told({}), "layer_replication: names no layer"));
  CHECK(has(told({{0, 2}, {2, 4}}), "[2, 4] is no range of the model's 3 layers"));
  for (const auto& range : {std::pair<int64_t, int64_t>{-1, 2}, {2, 2}, {2, 1}, {0, INT64_MAX}})
    CHECK(has(told({range}), "is no range"));
  CHECK(has(told(std::vector<std::pair<int64_t, int64_t>>(4000, {0, 3})), "more than 10000 layers"));
  CHECK(model->config().num_hidden_layers == 3);
  model->find("model.norm")->attach("other", std::make_shared<Nothing>());
  CHECK(has(told({{0, 3}}), "another adapter is on 'model.norm' already"));
}
