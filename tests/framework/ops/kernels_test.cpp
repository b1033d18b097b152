// Shows that the decoder's kernels equal their definitions, values and gradients: in fp64 up to rounding, in fp32
// within a few units in the last place of the fp64 result, in bf16 within its precision; with every instruction set of
// this machine, for widths that are not a multiple of a vector, and for inputs that are views.
#include <torch/nn.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "ops/attention.h"
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/simd.h"
#include "ops/cross_entropy.h"
#include "ops/matmul.h"
#include "ops/rms_norm.h"
#include "ops/rotary.h"
#include "ops/swiglu.h"
#include "support/test.h"

#include <functional>

namespace {

using peft::Tensor;
using Operation = std::function<Tensor(const std::vector<Tensor>&)>;

Tensor noise(at::IntArrayRef shape, double size = 1) {
  return torch::randn(shape, torch::kDouble).mul_(size).to(torch::kBFloat16).to(torch::kDouble);
}

/// The result and the gradients of its product with fixed weights, all in fp64.
std::vector<Tensor> outcome(const Operation& f, const std::vector<Tensor>& inputs, torch::Dtype dtype) {
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.to(dtype).detach().clone().requires_grad_());
  const Tensor y = f(leaves);
  torch::manual_seed(99);
  const Tensor weights = noise(y.sizes()).to(y.scalar_type());
  (y * weights).sum().backward();
  std::vector<Tensor> all = {y.detach().to(torch::kDouble)};
  for (const Tensor& leaf : leaves) all.push_back(leaf.grad().to(torch::kDouble));
  return all;
}

/// Largest difference, relative to the largest value.
double distance(const Tensor& a, const Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item<double>();
}

void compare(const Operation& kernel, const Operation& definition, const std::vector<Tensor>& inputs,
             double fp32 = 1e-6) {
  const auto wanted = outcome(definition, inputs, torch::kDouble);
  const auto near = [&](torch::Dtype dtype, double tolerance) {
    const auto got = outcome(kernel, inputs, dtype);
    for (size_t i = 0; i < wanted.size(); ++i) {
      INFO("of " << torch::toString(dtype) << ", " << (i == 0 ? "value" : "gradient " + std::to_string(i)));
      CHECK(distance(got[i], wanted[i]) < tolerance);
    }
  };
  near(torch::kDouble, 1e-13);
  for (const auto& set : peft::simd::instruction_sets()) {
    INFO("with " << set.name);
    peft::simd::set_active_isa(set);
    near(torch::kFloat, fp32);
    for (const bool tiles : {true, false}) {
      INFO("tile products, if there are any: " << tiles);
      peft::enable_tiles(tiles);
      near(torch::kBFloat16, 0.016);  // four roundings of 2^-8
    }
    peft::enable_tiles(true);
  }
  peft::simd::set_active_isa(peft::simd::instruction_sets().front());
}

Tensor rms_norm_definition(const Tensor& x, const Tensor& weight, double eps) {
  return weight * x * (x.square().mean(-1, true) + eps).rsqrt();
}

Tensor rotary_definition(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  const auto full = [&](const Tensor& t) { return torch::cat({t, t}, -1).unsqueeze(1).to(x.scalar_type()); };
  return x * full(cos) + torch::cat({-halves[1], halves[0]}, -1) * full(sin);
}

Tensor attention_definition(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& cu_seqlens,
                            double scale) {
  const int64_t tokens = q.size(0), group = q.size(1) / k.size(1);
  const Tensor keys = k.repeat_interleave(group, 1), values = v.repeat_interleave(group, 1);
  Tensor example = torch::zeros({tokens}, torch::kLong);
  for (size_t i = 1; i + 1 < cu_seqlens.size(); ++i) example.narrow(0, cu_seqlens[i], tokens - cu_seqlens[i]).add_(1);
  const Tensor visible =
      torch::ones({tokens, tokens}, torch::kBool).tril() & (example.unsqueeze(0) == example.unsqueeze(1));
  const Tensor scores = torch::einsum("qhd,khd->hqk", {q, keys}) * scale;
  const Tensor p = scores.masked_fill(~visible, -INFINITY).softmax(-1);
  return torch::einsum("hqk,khd->qhd", {p, values}).reshape({tokens, -1});
}

}  // namespace

TEST_CASE("rms_norm") {
  torch::manual_seed(1);
  for (const int64_t width : {576, 64, 17, 1}) {
    compare([](const auto& in) { return peft::rms_norm(in[0], in[1], 1e-5); },
            [](const auto& in) { return rms_norm_definition(in[0], in[1], 1e-5); },
            {noise({67, width}), noise({width})},
            width == 1 ? 2e-5 : 2e-6);  // one feature: the gradient is the difference of nearly equal numbers
  }
  const Tensor zeros = torch::zeros({3, 32});
  CHECK(peft::rms_norm(zeros, torch::ones({32}), 1e-5).equal(zeros));
}

TEST_CASE("rms_norm with a weight of another dtype, of more dimensions, of a view") {
  const Tensor x = torch::randn({4, 6, 32});
  const Tensor weight = torch::randn({32});
  const Tensor wanted = rms_norm_definition(x.to(torch::kDouble), weight.to(torch::kDouble), 1e-6);
  CHECK(distance(peft::rms_norm(x, weight, 1e-6).to(torch::kDouble), wanted) < 1e-6);
  const Tensor view = x.transpose(0, 1);
  CHECK(distance(peft::rms_norm(view, weight, 1e-6).to(torch::kDouble), wanted.transpose(0, 1)) < 1e-6);
  const Tensor narrow = peft::rms_norm(x.to(torch::kBFloat16), weight, 1e-6);
  CHECK(narrow.scalar_type() == torch::kFloat);  // as torch multiplies them
}

TEST_CASE("swiglu") {
  torch::manual_seed(2);
  for (const int64_t width : {1536, 33, 5}) {
    compare([](const auto& in) { return peft::swiglu(in[0], in[1]); },
            [](const auto& in) { return torch::silu(in[0]) * in[1]; }, {noise({41, width}, 4), noise({41, width})});
  }
  const Tensor extreme = torch::tensor({-200.f, -89.f, -20.f, 0.f, 20.f, 89.f, 200.f, 1e30f, -1e30f});
  const Tensor y = peft::swiglu(extreme, torch::ones({9}));
  CHECK(torch::allclose(y, torch::silu(extreme), 1e-6, 1e-30));
  CHECK(peft::swiglu(torch::full({1}, NAN), torch::ones({1})).isnan().all().item<bool>());
}

TEST_CASE("apply_rotary") {
  torch::manual_seed(3);
  for (const int64_t dim : {64, 24, 6}) {
    const Tensor angle = torch::rand({50, dim / 2}, torch::kDouble) * 6;
    const Tensor cos = angle.cos().to(torch::kBFloat16).to(torch::kDouble);
    const Tensor sin = angle.sin().to(torch::kBFloat16).to(torch::kDouble);
    compare([&](const auto& in) { return peft::apply_rotary(in[0], cos, sin); },
            [&](const auto& in) { return rotary_definition(in[0], cos, sin); }, {noise({50, 3, dim})});
    // Angles given twice, and heads that are a slice of wider rows.
    const Tensor rows = noise({50, 5 * dim}).to(torch::kFloat);
    const Tensor slice = rows.narrow(1, dim, 3 * dim).view({50, 3, dim});
    const Tensor twice = peft::apply_rotary(slice, torch::cat({cos, cos}, -1), torch::cat({sin, sin}, -1));
    CHECK(distance(twice.to(torch::kDouble), rotary_definition(slice.to(torch::kDouble), cos, sin)) < 1e-6);
  }
}

TEST_CASE("attention") {
  torch::manual_seed(4);
  struct Shape {
    int64_t heads, kv, dim;
    std::vector<int64_t> cu_seqlens;
  };
  const std::vector<Shape> shapes = {
      {9, 3, 64, {0, 48, 48, 49, 160}}, {4, 4, 20, {0, 17, 31, 98}}, {6, 1, 128, {0, 5}},
      {2, 2, 7, {0, 1, 2, 3, 203}},     {3, 1, 16, {0, 1100, 1165}}, {4, 2, 80, {0, 64, 65, 128, 256, 257}}};
  for (const Shape& s : shapes) {
    const int64_t tokens = s.cu_seqlens.back();
    INFO("head dimension " << s.dim);
    compare([&](const auto& in) { return peft::attention(in[0], in[1], in[2], s.cu_seqlens, 0.3); },
            [&](const auto& in) { return attention_definition(in[0], in[1], in[2], s.cu_seqlens, 0.3); },
            {noise({tokens, s.heads, s.dim}), noise({tokens, s.kv, s.dim}), noise({tokens, s.kv, s.dim})}, 4e-6);
  }
}

TEST_CASE("attention of views, of no tokens, and with large scores") {
  torch::manual_seed(5);
  const Tensor qkv = torch::randn({70, 5 * 16});
  const auto part = [&](int64_t first, int64_t heads) {
    return qkv.narrow(1, first * 16, heads * 16).view({70, heads, 16});
  };
  const Tensor q = part(0, 3), k = part(3, 1), v = part(4, 1);
  const std::vector<int64_t> cu_seqlens = {0, 30, 70};
  const auto wide = [](const Tensor& t) { return t.to(torch::kDouble); };
  const Tensor wanted = attention_definition(wide(q), wide(k), wide(v), cu_seqlens, 1);
  CHECK(distance(wide(peft::attention(q, k, v, cu_seqlens, 1)), wanted) < 2e-6);
  const Tensor steep = attention_definition(wide(q), wide(k), wide(v), cu_seqlens, 1000);
  CHECK(distance(wide(peft::attention(q, k, v, cu_seqlens, 1000)), steep) <
        2e-3);  // scores near 10^4, held to 2^-24 of it
  CHECK(peft::attention(q.narrow(0, 0, 0), k.narrow(0, 0, 0), v.narrow(0, 0, 0), {0}, 1).size(0) == 0);
  CHECK_THROWS(peft::attention(q, k, v, {0, 30}, 1));
  CHECK_THROWS(peft::attention(q, k, v, {0, 40, 30, 70}, 1));
  CHECK_THROWS(peft::attention(q, part(3, 2), part(3, 2), cu_seqlens, 1));
}

TEST_CASE("attention gives the same bits with any number of threads") {
  torch::manual_seed(6);
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    const Tensor k = torch::randn({150, 2, 32}).to(dtype), v = torch::randn({150, 2, 32}).to(dtype);
    const auto gradients = [&](int threads) {
      at::set_num_threads(threads);
      const Tensor q = torch::ones({150, 4, 32}, dtype).requires_grad_(), key = k.clone().requires_grad_();
      peft::attention(q, key, v, {0, 20, 150}, 0.2).square().sum().backward();
      return std::make_pair(q.grad(), key.grad());
    };
    const int before = at::get_num_threads();
    const auto single_threaded = gradients(1), multi_threaded = gradients(3);
    at::set_num_threads(before);
    CHECK(single_threaded.first.equal(multi_threaded.first));
    CHECK(single_threaded.second.equal(multi_threaded.second));
  }
}

TEST_CASE("linear_cross_entropy_sum") {
  torch::manual_seed(7);
  for (const int64_t vocabulary : {1003, 5}) {
    const Tensor weight = noise({vocabulary, 24}, 0.3);
    const Tensor targets = torch::randint(vocabulary, {300}, torch::kLong);
    compare(
        [&](const auto& in) {
          return peft::linear_cross_entropy_sum(in[0], peft::DenseWeight(weight.to(in[0].scalar_type())), targets);
        },
        [&](const auto& in) {
          return torch::nn::functional::cross_entropy(
              torch::linear(in[0], weight), targets,
              torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
        },
        {noise({300, 24})}, 3e-6);
  }
}

TEST_CASE("linear_cross_entropy_sum of a confident prediction, of invalid targets, of no rows") {
  const Tensor hidden = torch::tensor({{60.f, 0.f}, {0.f, 20.f}}, torch::requires_grad());
  const Tensor weight = torch::tensor({{1.f, 0.f}, {0.f, 1.f}, {0.f, 0.f}});
  // A confident prediction has an exact gradient: p − 1 = −2·e^−20 is far below an ulp of 1.
  const Tensor loss = peft::linear_cross_entropy_sum(hidden, peft::DenseWeight(weight), torch::tensor({0, 1}));
  loss.backward();
  CHECK(hidden.grad()[1][1].item<double>() == Approx(-2 * std::exp(-20.)).epsilon(1e-5));
  CHECK(loss.dtype() == torch::kFloat);
  CHECK_FALSE(peft::linear_cross_entropy_sum(hidden.detach(), peft::DenseWeight(weight), torch::tensor({0, 1}))
                  .requires_grad());
  CHECK_THROWS(peft::linear_cross_entropy_sum(hidden, peft::DenseWeight(weight), torch::tensor({0, 3})));
  CHECK_THROWS(peft::linear_cross_entropy_sum(hidden, peft::DenseWeight(weight), torch::tensor({-1, 0})));
  const Tensor none = torch::zeros({0, 2}, torch::requires_grad());
  CHECK(
      peft::linear_cross_entropy_sum(none, peft::DenseWeight(weight), torch::zeros({0}, torch::kLong)).item<float>() ==
      0);
}

TEST_CASE("affine and product") {
  torch::manual_seed(8);
  const Tensor weight = noise({48, 80}, 0.2), bias = noise({48});
  const auto to = [](const Tensor& t, const Tensor& like) { return t.to(like.scalar_type()); };
  compare([&](const auto& in) { return peft::frozen_linear(in[0], to(weight, in[0]), to(bias, in[0])); },
          [&](const auto& in) { return torch::matmul(in[0], weight.t()) + bias; }, {noise({3, 50, 80})}, 2e-6);
  compare([&](const auto& in) { return peft::frozen_linear(in[0], to(weight, in[0])); },
          [&](const auto& in) { return torch::matmul(in[0], weight.t()); }, {noise({3, 50, 80})}, 2e-6);
  // Trainable weights, and products that are converted in parts, along either side.
  compare([&](const auto& in) { return peft::frozen_linear(in[0], in[1]); },
          [&](const auto& in) { return torch::matmul(in[0], in[1].t()); }, {noise({50, 80}), noise({48, 80})}, 2e-6);
  const Tensor large = noise({70000, 64}).to(torch::kBFloat16), rows = noise({40, 64}).to(torch::kBFloat16);
  const auto wide = [](const Tensor& t) { return t.to(torch::kDouble); };
  const Tensor y = peft::gemm(rows, large.t());
  CHECK(distance(wide(y), wide(rows).mm(wide(large).t())) < 0.004);
  CHECK(distance(wide(peft::gemm(y, large)), wide(y).mm(wide(large))) < 0.004);
}
