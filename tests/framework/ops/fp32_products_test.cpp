// Shows that fp32 products of BLAS and of oneDNN equal those in fp64 within fp32's precision, values and gradients, for
// matrices, transposes and views, with many rows and few; and that the choice follows the variable, then the name
// given.
#include "ops/fp32_products.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cstdlib>

#include "ops/matmul.h"
#include "peft/base/error.h"
#include "support/test.h"

namespace {

using peft::Fp32Products;
using peft::Tensor;

constexpr const char* kVariable = "PEFT_FP32_PRODUCTS";

/// The variable's value during a test; null: not set.
class Variable {
 public:
  explicit Variable(const char* value) { set(value); }
  ~Variable() {
    set(nullptr);
    peft::choose_fp32_products("");
  }
  void set(const char* value) const {
    if (value == nullptr)
      ::unsetenv(kVariable);
    else
      ::setenv(kVariable, value, 1);
  }
};

Tensor wide(const Tensor& t) { return t.to(torch::kDouble); }

/// Largest difference, relative to the largest value.
double distance(const Tensor& a, const Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return ((wide(a) - wide(b)).abs().max() / wide(b).abs().max().clamp_min(1e-30)).item<double>();
}

void check_gemm(const Tensor& a, const Tensor& b) {
  INFO(a.sizes() << " · " << b.sizes() << " of strides " << b.strides());
  CHECK(distance(peft::gemm(a, b), wide(a).mm(wide(b))) < 2e-6);
  Tensor sum = torch::randn({a.size(0), b.size(1)});
  const Tensor wanted = wide(sum).addmm(wide(a), wide(b));
  peft::add_gemm(sum, a, b);
  CHECK(distance(sum, wanted) < 2e-6);
}

void check_frozen_linear(const Tensor& bias) {
  const Tensor weight = torch::randn({48, 80});
  Tensor x = torch::randn({3, 50, 80}).requires_grad_(), x64 = wide(x.detach()).requires_grad_();
  const Tensor y = peft::frozen_linear(x, weight, bias);
  const Tensor wanted = at::linear(x64, wide(weight), bias.defined() ? wide(bias) : bias);
  CHECK(distance(y.detach(), wanted.detach()) < 2e-6);
  const Tensor dy = torch::randn(y.sizes());
  y.backward(dy);
  wanted.backward(wide(dy));
  CHECK(distance(x.grad(), x64.grad()) < 2e-6);
}

}  // namespace

TEST_CASE("fp32 products of both libraries") {
  const Variable variable(nullptr);
  torch::manual_seed(1);
  for (const char* products : {"blas", "onednn"}) {
    peft::choose_fp32_products(products);
    INFO("with " << products << ", in use: " << name(peft::fp32_products()));
    const Tensor a = torch::randn({70, 40}), b = torch::randn({40, 30});
    check_gemm(a, b);
    check_gemm(a, torch::randn({30, 40}).t());
    check_gemm(torch::randn({40, 70}).t(), b);
    check_gemm(a.narrow(1, 3, 20), b.narrow(0, 5, 20));
    check_gemm(a, torch::randn({40, 50}).narrow(1, 7, 30));  // rows with gaps
    for (const int64_t rows : {0, 1, 5, 31, 32, 33}) {
      if (rows > 0) check_gemm(a.narrow(0, 0, rows), b);
      CHECK(peft::gemm(a.narrow(0, 0, rows), b).sizes() == at::IntArrayRef({rows, 30}));
    }
    check_gemm(torch::randn({70, 600}), torch::randn({600, 30}));  // deep
    check_frozen_linear({});
    check_frozen_linear(torch::randn({48}));
  }
}

TEST_CASE("a choice by name holds until the next one, and an unknown name restores the first choice") {
  const Variable variable(nullptr);
  peft::choose_fp32_products("");
  const Fp32Products first = peft::fp32_products();
  peft::choose_fp32_products("blas");
  CHECK(peft::fp32_products() == Fp32Products::blas);
  peft::choose_fp32_products("another version's");
  CHECK(peft::fp32_products() == first);
}

TEST_CASE("PEFT_FP32_PRODUCTS overrides the choice") {
  const Variable variable("blas");
  peft::choose_fp32_products("onednn");
  CHECK(peft::fp32_products() == Fp32Products::blas);
  variable.set("openblas");
  CHECK_THROWS_AS(peft::choose_fp32_products(""), peft::ConfigError);
  variable.set("");
  CHECK_THROWS_AS(peft::choose_fp32_products(""), peft::ConfigError);
}
