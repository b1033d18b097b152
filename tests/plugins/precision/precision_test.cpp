// Shows for precisions: each has the dtypes of its name; fp16 scales the loss and unscales gradients exactly, its scale
// changes as that of torch.amp.GradScaler (tests/parity/test_clipping.py compares them), an overflow skips the step and
// is counted once, repeated overflow ends the run, and a run resumed from its state equals the uninterrupted run.
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "peft/base/error.h"
#include "peft/train/precision.h"
#include "plugins/load.h"
#include "support/test.h"

using namespace peft;
using torch::Tensor;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

std::unique_ptr<Precision> fp16(const std::string& toml = "") { return test::load<Precision>("fp16", toml); }

/// One step of y = slope · p: is it ready? An infinite slope is an overflow.
bool step(Precision& precision, Tensor& p, float slope = 1) {
  p.mutable_grad().reset();
  precision.backward((p * slope).sum());
  return precision.unscale_gradients({p});
}

double scale(const Precision& precision) { return precision.state_dict().at("scale").item<double>(); }
int tracker(const Precision& precision) { return precision.state_dict().at("growth_tracker").item<int>(); }
Tensor leaf(torch::Dtype dtype = torch::kFloat32) {
  return torch::ones({3}, torch::TensorOptions(dtype).requires_grad(true));
}

}  // namespace

TEST_CASE("dtypes of each precision", "[precision]") {
  struct Row {
    std::string name;
    torch::Dtype base, adapter;
  };
  for (const Row& row :
       {Row{"fp64", torch::kFloat64, torch::kFloat64}, Row{"fp32", torch::kFloat32, torch::kFloat32},
        Row{"bf16", torch::kBFloat16, torch::kFloat32}, Row{"fp16", torch::kFloat16, torch::kFloat32}}) {
    INFO(row.name);
    const auto precision = test::load<Precision>(row.name, "");
    CHECK(precision->base_dtype() == row.base);
    CHECK(precision->adapter_dtype() == row.adapter);
  }
}

TEST_CASE("the unscaled precisions leave loss and gradients alone and keep no state", "[precision]") {
  for (const std::string name : {"fp64", "fp32", "bf16"}) {
    INFO(name);
    const auto precision = test::load<Precision>(name, "");
    Tensor p = leaf(precision->adapter_dtype());
    CHECK(step(*precision, p, 0.1F));
    CHECK(torch::equal(p.grad(), torch::full_like(p, 0.1F)));
    CHECK(precision->state_dict().empty());
    precision->load_state_dict({});
    CHECK_THROWS_AS(precision->load_state_dict({{"scale", torch::ones({})}}), InputError);
    CHECK(precision->forward([&] { return p.sum(); }).item<double>() == 3);
  }
}

TEST_CASE("fp16 scales the loss and brings gradients back", "[precision]") {
  const auto precision = fp16();
  Tensor p = leaf();
  precision->backward((p * 0.1F).sum());
  CHECK(torch::equal(p.grad(), torch::full_like(p, 0.1F * 65536)));
  Tensor unused = leaf();
  CHECK(precision->unscale_gradients({unused, p}));
  CHECK(torch::equal(p.grad(), torch::full_like(p, 0.1F)));
  CHECK(!unused.grad().defined());
  // They are at their true scale now: nothing is left to undo.
  CHECK(precision->unscale_gradients({p}));
  CHECK(torch::equal(p.grad(), torch::full_like(p, 0.1F)));
  CHECK(tracker(*precision) == 1);
}

TEST_CASE("fp16 unscales once however many backward passes a step has", "[precision]") {
  const auto precision = fp16();
  Tensor p = leaf();
  for (int i = 0; i < 4; ++i) precision->backward((p * 0.25F).sum());
  CHECK(precision->unscale_gradients({p}));
  CHECK(torch::equal(p.grad(), torch::ones({3})));
}

TEST_CASE("gradients that fp16 would round to zero survive with the loss scale", "[precision]") {
  // 1e-8 is under fp16's smallest number, 6e-8; times 65536 it is not.
  const auto precision = fp16();
  Tensor p = leaf();
  const auto half_loss = [&] { return (p.to(torch::kFloat16).to(torch::kFloat32) * 1e-8F).sum(); };
  half_loss().backward();
  CHECK(torch::equal(p.grad(), torch::zeros({3})));
  p.mutable_grad().reset();
  precision->backward(half_loss());
  CHECK(precision->unscale_gradients({p}));
  CHECK(torch::allclose(p.grad(), torch::full({3}, 1e-8F), 1e-3, 0));
}

TEST_CASE("fp16's scale follows the documented rule", "[precision]") {
  const auto precision = fp16("init_scale = 1024\ngrowth_factor = 4\nbackoff_factor = 0.25\ngrowth_interval = 3");
  Tensor p = leaf();
  struct Row {
    bool finite;
    double scale;
    int tracker;
  };
  const std::vector<Row> rows = {{true, 1024, 1}, {true, 1024, 2}, {true, 4096, 0}, {true, 4096, 1}, {false, 1024, 0},
                                 {false, 256, 0}, {true, 256, 1},  {true, 256, 2},  {false, 64, 0},  {true, 64, 1},
                                 {true, 64, 2},   {true, 256, 0},  {true, 256, 1}};
  for (size_t i = 0; i < rows.size(); ++i) {
    INFO("step " << i);
    CHECK(step(*precision, p, rows[i].finite ? 1 : inf) == rows[i].finite);
    CHECK(scale(*precision) == rows[i].scale);
    CHECK(tracker(*precision) == rows[i].tracker);
  }
}

TEST_CASE("fp16's scale stops growing where fp32 ends", "[precision]") {
  const auto precision = fp16("init_scale = 1e30\ngrowth_factor = 1e9\ngrowth_interval = 1");
  Tensor p = leaf();
  CHECK(step(*precision, p, 1));
  CHECK(scale(*precision) == static_cast<double>(1e30F));
}

TEST_CASE("fp16 ends a run once the scale falls below its minimum, and not before", "[precision]") {
  const auto precision = fp16();
  Tensor p = leaf();
  int skipped = 0;
  try {
    for (; skipped < 100; ++skipped) {
      const bool taken = step(*precision, p, inf);  // outside the check: it may throw what ends the loop
      REQUIRE_FALSE(taken);
    }
  } catch (const DivergedError& error) {
    CHECK(std::string(error.what()).find("loss scale fell below min_scale") != std::string::npos);
  }
  CHECK(skipped == 29);  // 2^16 halved 29 times is 1.2e-4; the 30th is below 1e-4
}

TEST_CASE("fp16 resumes from its state as if it had not been interrupted", "[precision]") {
  const std::string toml = "growth_interval = 3";
  const std::vector<float> slopes = {1, 1, inf, 1, 1, 1, 1, inf, 1, 1, 1};
  for (size_t stop = 0; stop <= slopes.size(); ++stop) {
    INFO("stopped after " << stop);
    auto uninterrupted = fp16(toml);
    auto part = fp16(toml);
    Tensor p = leaf();
    Tensor q = leaf();
    for (size_t i = 0; i < slopes.size(); ++i) {
      if (i == stop) {
        const StateDict kept = part->state_dict();
        part = fp16(toml);
        part->load_state_dict(kept);
      }
      CHECK(step(*uninterrupted, p, slopes[i]) == step(*part, q, slopes[i]));
      CHECK(scale(*uninterrupted) == scale(*part));
      CHECK(tracker(*uninterrupted) == tracker(*part));
    }
  }
}

TEST_CASE("fp16's state is its own copy", "[precision]") {
  const auto precision = fp16();
  const StateDict before = precision->state_dict();
  Tensor p = leaf();
  CHECK_FALSE(step(*precision, p, inf));
  CHECK(before.at("scale").item<double>() == 65536);
}

TEST_CASE("fp16 increases the scale after the next finite step if its interval was shortened", "[precision]") {
  const auto precision = fp16("growth_interval = 2");
  precision->load_state_dict({{"scale", torch::tensor(8.0F)}, {"growth_tracker", torch::tensor(100, torch::kInt32)}});
  Tensor p = leaf();
  CHECK(step(*precision, p));
  CHECK(scale(*precision) == 16);
}

TEST_CASE("fp16 refuses a state that is not one", "[precision]") {
  const auto precision = fp16();
  const StateDict good = precision->state_dict();
  const auto with = [&](const std::string& name, const Tensor& tensor) {
    StateDict bad = good;
    bad[name] = tensor;
    return bad;
  };
  CHECK_THROWS_AS(precision->load_state_dict({}), InputError);
  CHECK_THROWS_AS(precision->load_state_dict(with("other", torch::ones({}))), InputError);
  CHECK_THROWS_AS(precision->load_state_dict(with("scale", torch::tensor(0.0F))), InputError);
  CHECK_THROWS_AS(precision->load_state_dict(with("scale", torch::tensor(inf))), InputError);
  CHECK_THROWS_AS(precision->load_state_dict(with("scale", torch::tensor(NAN))), InputError);
  CHECK_THROWS_AS(precision->load_state_dict(with("scale", torch::ones({2}))), InputError);
  CHECK_THROWS_AS(precision->load_state_dict(with("growth_tracker", torch::tensor(-1, torch::kInt32))), InputError);
  CHECK_THROWS_AS(precision->load_state_dict(with("growth_tracker", torch::ones({}))), InputError);
  CHECK(scale(*precision) == 65536);
}

TEST_CASE("fp16 refuses fp16 gradients and options out of range", "[precision]") {
  const auto precision = fp16("init_scale = 2");
  Tensor p = leaf(torch::kFloat16);
  CHECK_THROWS_AS(step(*precision, p), PluginError);
  for (const std::string wrong : {"init_scale = 0", "init_scale = 1e39", "growth_factor = 1", "backoff_factor = 1",
                                  "backoff_factor = 0", "growth_interval = 0", "growth_interval = 3000000000",
                                  "min_scale = 0", "init_scale = 2\nmin_scale = 3", "growth = 2"}) {
    INFO(wrong);
    CHECK_THROWS_AS(fp16(wrong), ConfigError);
  }
}
