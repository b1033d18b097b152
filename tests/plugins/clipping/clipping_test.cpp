// Shows for gradient clipping: every plugin returns the global 2-norm before clipping, over all gradients that exist;
// norm and value equal torch.nn.utils (tests/parity/test_clipping.py compares them), agc equals its paper, row by row;
// sums are in fp32 or wider; non-finite gradients are reported and not changed.
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "peft/base/error.h"
#include "peft/train/clipping.h"
#include "plugins/load.h"
#include "support/test.h"

using namespace peft;
using torch::Tensor;

namespace {

using Tensors = std::vector<Tensor>;
constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

Tensor parameter(const Tensor& value, const Tensor& gradient) {
  Tensor p = value.detach().clone().set_requires_grad(true);
  if (gradient.defined()) p.mutable_grad() = gradient.clone();
  return p;
}

/// Gradients 3 and (4, 12), so the norm is 13, around a parameter that has none.
Tensors small(torch::Dtype dtype = torch::kFloat32) {
  const auto ones = torch::ones({2}, dtype);
  return {parameter(ones.slice(0, 0, 1), torch::tensor({3.0}).to(dtype)), parameter(ones, {}),
          parameter(ones, torch::tensor({4.0, 12.0}).to(dtype))};
}

ParamGroup group(const Tensors& parameters) {
  ParamGroup group;
  for (const Tensor& p : parameters) group.parameters.emplace_back(std::to_string(group.parameters.size()), p);
  return group;
}

double clip(const std::string& name, const std::string& toml, const Tensors& parameters) {
  return test::load<GradientClipping>(name, toml)->clip({group(parameters)});
}

bool near(double value, double expected, double tolerance) {
  return std::abs(value - expected) <= tolerance * std::abs(expected);
}

void check_values(const Tensor& tensor, const std::vector<double>& expected, double tolerance = 1e-6) {
  const Tensor flat = tensor.flatten().to(torch::kFloat64);
  REQUIRE(flat.numel() == static_cast<int64_t>(expected.size()));
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(near(flat[static_cast<int64_t>(i)].item<double>(), expected[i], tolerance));
}

const std::vector<std::string> names = {"none", "norm", "value", "agc", "zclip"};

}  // namespace

TEST_CASE("every gradient clipping returns the norm before clipping and skips parameters without a gradient",
          "[clipping]") {
  for (const std::string& name : names) {
    INFO(name);
    const Tensors parameters = small();
    CHECK(clip(name, "", parameters) == 13);
    CHECK(!parameters[1].grad().defined());
    CHECK(torch::equal(parameters[2].detach(), torch::ones({2})));
    CHECK(clip(name, "", {}) == 0);
    CHECK(clip(name, "", {parameters[1]}) == 0);
    const Tensors still = {parameter(torch::ones({2, 2}), torch::zeros({2, 2}))};
    CHECK(clip(name, "", still) == 0);
    CHECK(torch::equal(still[0].grad(), torch::zeros({2, 2})));
  }
}

TEST_CASE("non-finite gradients are reported and not changed", "[clipping]") {
  for (const std::string& name : names)
    for (const float bad : {inf, -inf, nan_value}) {
      INFO(name << " " << bad);
      Tensors parameters = small();
      parameters[0].mutable_grad().fill_(bad);
      const double norm = clip(name, "", parameters);
      CHECK((std::isnan(bad) ? std::isnan(norm) : std::isinf(norm)));
      check_values(parameters[2].grad(), {4, 12}, 0);
      const float after = parameters[0].grad().item<float>();
      CHECK((std::isnan(bad) ? std::isnan(after) : after == bad));
    }
}

TEST_CASE("none does not change gradients", "[clipping]") {
  const Tensors parameters = small();
  clip("none", "", parameters);
  check_values(parameters[0].grad(), {3}, 0);
  check_values(parameters[2].grad(), {4, 12}, 0);
}

TEST_CASE("norm scales gradients above the limit and leaves others unchanged", "[clipping]") {
  const Tensors parameters = small();
  CHECK(clip("norm", "max_norm = 6.5", parameters) == 13);
  const double factor = 6.5 / (13 + 1e-6);
  check_values(parameters[0].grad(), {3 * factor}, 1e-6);
  check_values(parameters[2].grad(), {4 * factor, 12 * factor}, 1e-6);

  const Tensors short_ones = small();
  CHECK(clip("norm", "max_norm = 13.1", short_ones) == 13);
  check_values(short_ones[0].grad(), {3}, 0);
  check_values(short_ones[2].grad(), {4, 12}, 0);
}

TEST_CASE("norm of another order bounds that norm and returns the 2-norm", "[clipping]") {
  const Tensors parameters = small();  // the 1-norm is 19
  CHECK(clip("norm", "max_norm = 1.9\nnorm_type = 1", parameters) == 13);
  check_values(parameters[2].grad(), {0.4, 1.2}, 1e-6);
}

TEST_CASE("norms are summed in fp32 at least", "[clipping]") {
  // 65536 gradients of 1/4: the norm is 64. In bf16 a sum of squares would stop growing long before.
  const Tensor many = torch::full({65536}, 0.25, torch::kBFloat16);
  CHECK(clip("none", "", {parameter(many, many)}) == 64);
  const Tensor tiny = torch::tensor({1.0, 1e-10}, torch::kFloat64);
  CHECK(near(clip("none", "", {parameter(tiny, tiny * 1e10)}), 1e10, 1e-15));
  const Tensors wide = small(torch::kFloat64);
  CHECK(near(clip("norm", "max_norm = 1", wide), 13, 1e-14));
  check_values(wide[2].grad(), {4 / (13 + 1e-6), 12 / (13 + 1e-6)}, 1e-15);
}

TEST_CASE("finite gradients whose squares overflow fp32 are still measured and clipped", "[clipping]") {
  const auto huge = [] { return parameter(torch::ones({2}), torch::tensor({3e30F, 4e30F})); };
  const Tensor p = huge();
  CHECK(near(clip("norm", "max_norm = 1", {p}), 5e30, 1e-6));
  check_values(p.grad(), {0.6, 0.8}, 1e-6);
  const Tensor q = huge();
  CHECK(near(clip("value", "clip_value = 2", {q}), 5e30, 1e-6));
  check_values(q.grad(), {2, 2}, 0);
  CHECK_THROWS_AS(clip("norm", "norm_type = 64", {parameter(torch::ones({2}), torch::tensor({3e30F, 4e30F}))}),
                  DivergedError);
}

TEST_CASE("value bounds each element", "[clipping]") {
  const Tensor p = parameter(torch::ones({2, 2}), torch::tensor({{-3.0F, -0.5F}, {0.25F, 7.0F}}));
  CHECK(near(clip("value", "clip_value = 0.5", {p}), std::sqrt(9 + 0.25 + 0.0625 + 49), 1e-6));
  check_values(p.grad(), {-0.5, -0.5, 0.25, 0.5}, 0);
}

TEST_CASE("agc bounds each row by the row's own norm", "[clipping]") {
  // Norms of the rows of weights 5, 10 and 0 (counts as eps); of gradients 5, 0.05 and 2.
  const Tensor p = parameter(torch::tensor({{3.0F, 4.0F}, {6.0F, 8.0F}, {0.0F, 0.0F}}),
                             torch::tensor({{4.0F, 3.0F}, {0.03F, 0.04F}, {0.0F, 2.0F}}));
  clip("agc", "clipping = 0.1\neps = 0.01", {p});
  check_values(p.grad(), {0.4, 0.3, 0.03F, 0.04F, 0, 0.001}, 1e-6);
}

TEST_CASE("agc takes a vector as one unit, and all of a row's inner dimensions", "[clipping]") {
  const Tensor vector = parameter(torch::tensor({3.0F, 4.0F}), torch::tensor({30.0F, 40.0F}));
  const Tensor kernel = parameter(torch::ones({2, 2, 2}), torch::ones({2, 2, 2}));
  clip("agc", "", {vector, kernel});
  check_values(vector.grad(), {0.03, 0.04}, 1e-6);
  check_values(kernel.grad(), std::vector<double>(8, 0.01), 1e-6);
}

TEST_CASE("norm per group and per tensor bounds each by itself", "[clipping]") {
  for (const std::string per : {"group", "tensor"}) {
    INFO(per);
    const Tensors one = small(), two = small();
    const auto norm = test::load<GradientClipping>("norm", "max_norm = 6.5\nper = \"" + per + "\"");
    CHECK(near(norm->clip({group(one), group(two)}), std::sqrt(2.0) * 13, 1e-6));
    const double factor = 6.5 / 13, of_last = per == "group" ? factor : 6.5 / std::sqrt(160.0);
    for (const Tensors& parameters : {one, two}) {
      check_values(parameters[0].grad(), {per == "group" ? 3 * factor : 3}, 1e-6);
      check_values(parameters[2].grad(), {4 * of_last, 12 * of_last}, 1e-6);
    }
  }
}

TEST_CASE("zclip resumes from its saved state as if it had not been interrupted", "[clipping]") {
  const std::string toml = "warmup_steps = 4\nmax_norm = 0";
  const auto gradient = [](int64_t step) {
    const double length = step == 7 || step == 11 ? 30 : 3 + static_cast<double>(step % 3);
    return Tensors{parameter(torch::ones({2}, torch::kFloat64), torch::tensor({0.6, 0.8}, torch::kFloat64) * length)};
  };
  const auto uninterrupted = test::load<GradientClipping>("zclip", toml);
  std::vector<Tensor> expected;
  for (int64_t step = 0; step < 15; ++step) {
    const Tensors now = gradient(step);
    uninterrupted->clip({group(now)});
    expected.push_back(now[0].grad());
  }
  CHECK(expected[7].norm().item<double>() < 10);  // an outlier
  check_values(expected[8], {0.6 * 5, 0.8 * 5}, 1e-15);
  for (int64_t cut = 0; cut < 15; ++cut) {
    const auto before = test::load<GradientClipping>("zclip", toml),
               after = test::load<GradientClipping>("zclip", toml);
    for (int64_t step = 0; step < 15; ++step) {
      if (step == cut) after->load_state_dict(before->state_dict());
      const Tensors now = gradient(step);
      (step < cut ? before : after)->clip({group(now)});
      CHECK(torch::equal(now[0].grad(), expected[static_cast<std::size_t>(step)]));
    }
  }
  StateDict unexpected = uninterrupted->state_dict();
  unexpected["nobody"] = torch::ones({});
  CHECK_THROWS_AS(uninterrupted->load_state_dict(unexpected), InputError);
  CHECK_THROWS_AS(uninterrupted->load_state_dict({}), InputError);
  CHECK_THROWS_AS(test::load<GradientClipping>("norm")->load_state_dict(uninterrupted->state_dict()), InputError);
}

TEST_CASE("options out of range are rejected", "[clipping]") {
  CHECK_THROWS_AS(test::load<GradientClipping>("norm", "per = \"layer\""), ConfigError);
  CHECK_THROWS_AS(test::load<GradientClipping>("zclip", "mode = \"z\""), ConfigError);
  CHECK_THROWS_AS(test::load<GradientClipping>("zclip", "warmup_steps = 0"), ConfigError);
  CHECK_THROWS_AS(test::load<GradientClipping>("norm", "max_norm = 0"), ConfigError);
  CHECK_THROWS_AS(test::load<GradientClipping>("norm", "norm_type = -1"), ConfigError);
  CHECK_THROWS_AS(test::load<GradientClipping>("value", "clip_value = -0.5"), ConfigError);
  CHECK_THROWS_AS(test::load<GradientClipping>("agc", "clipping = 0"), ConfigError);
  CHECK_THROWS_AS(test::load<GradientClipping>("agc", "eps = 0"), ConfigError);
  CHECK_THROWS_AS(test::load<GradientClipping>("none", "max_norm = 1"), ConfigError);
}
