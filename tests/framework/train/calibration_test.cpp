// Shows for calibration batches: the loss is the mean over target tokens; offsets and labels are those of the rows that
// layers see, also if another adapter adds virtual tokens before each example.
#include "peft/adapters/calibration.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "peft/adapters/adapter.h"
#include "peft/train/train.h"
#include "plugins/load.h"
#include "selfcheck/tiny_model.h"
#include "support/test.h"

using namespace peft;
using torch::Tensor;

namespace {

/// All of whose tokens are learned.
Dataset test_data() {
  Dataset data;
  for (const std::vector<int64_t>& ids : {std::vector<int64_t>{3, 9, 4, 7}, {8, 2}, {5, 6, 1}})
    data.examples.push_back({ids, ids});
  return data;
}

struct Seen {
  int64_t num_target_tokens, rows_of_layers;
  std::vector<int64_t> cu_seqlens;
  Tensor labels;
  double loss, sum;
};

Seen look(CausalLm& model) {
  const torch::NoGradGuard no_grad;
  const auto precision = test::load<Precision>("fp64");
  const auto objective = test::load<Objective>("sft");
  const Dataset data = test_data();
  TrainingOptions options;
  options.batch_size = 3;
  const Calibration given = calibration(model, *precision, *objective, data, options, false, 64);
  REQUIRE(given.batches == 1);
  const CalibrationBatch batch = given.batch(0);
  Seen seen{batch.num_target_tokens, 0, batch.row_cu_seqlens, batch.row_labels, 0, 0};
  const InputProbe probe({model.find("model.layers.0.self_attn.q_proj")},
                         [&](std::size_t, const Tensor& x) { seen.rows_of_layers = x.size(0); });
  seen.loss = given.loss(batch).item<double>();
  seen.sum = Pass(model, batch.input, batch.labels).cross_entropy_sum().item<double>();
  return seen;
}

}  // namespace

TEST_CASE("without virtual tokens an example's first token is not a target") {
  const auto model = test::tiny_model(test::tiny_config(), torch::kDouble);
  const Seen seen = look(*model);
  CHECK(seen.num_target_tokens == 9 - 3);
  CHECK(seen.loss == Approx(seen.sum / 6).epsilon(1e-12));
  CHECK(seen.rows_of_layers == 9);
  CHECK(seen.cu_seqlens.back() == 9);
  CHECK(seen.labels.size(0) == 9);
}

TEST_CASE("calibration batches contain the virtual tokens of adapters attached before") {
  const auto model = test::tiny_model(test::tiny_config(), torch::kDouble);
  const auto prompt = test::load<Adapter>("prompt_tuning", "num_virtual_tokens = 4");
  prompt->attach(*model, torch::kDouble);
  const Seen seen = look(*model);
  CHECK(seen.num_target_tokens == 9);
  CHECK(seen.loss == Approx(seen.sum / 9).epsilon(1e-12));
  CHECK(seen.rows_of_layers == 9 + 3 * 4);
  CHECK(seen.cu_seqlens.back() == 9 + 3 * 4);
  REQUIRE(seen.labels.size(0) == 9 + 3 * 4);
  CHECK((seen.labels != ignored_label).sum().item<int64_t>() == 9);
  for (std::size_t e = 0; e + 1 < seen.cu_seqlens.size(); ++e)
    CHECK((seen.labels.narrow(0, seen.cu_seqlens[e], 4) == ignored_label).all().item<bool>());
}
