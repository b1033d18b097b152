#include "ops/fp32_products.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/types.h>

#include <cstdlib>
#include <exception>
#include <new>

#include "peft/base/error.h"

namespace peft {

namespace {

constexpr const char* kVariable = "PEFT_FP32_PRODUCTS";

/// y = x·Wᵀ in oneDNN, for which libtorch has no header.
const std::optional<c10::OperatorHandle>& linear() {
  static const auto found = [] {
    auto handle = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    return handle && handle->hasKernelForDispatchKey(c10::DispatchKey::CPU) ? handle : std::nullopt;
  }();
  return found;
}

/// On small integers the result is exact.
bool multiplies_correctly() {
  const Tensor a = at::arange(48, at::kFloat).remainder(7).view({6, 8});
  const Tensor b = at::arange(40, at::kFloat).remainder(5).view({8, 5});
  const Tensor product = at::mm(a, b), transposed = b.t().contiguous().t();
  return at::equal(onednn_product(a, b), product) && at::equal(onednn_product(a, transposed), product);
}

bool has_onednn() {
  static const bool has = [] {
    try {
      return linear() && multiplies_correctly();
    } catch (const c10::Error&) {  // another version's operator
      return false;
    }
  }();
  return has;
}

/// A rule rather than a measurement at startup, which could choose differently from run to run and so change the bits.
bool is_onednn_faster() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

Fp32Products initial_choice() {
  const char* value = std::getenv(kVariable);
  if (value == nullptr) return is_onednn_faster() && has_onednn() ? Fp32Products::onednn : Fp32Products::blas;
  const std::string wanted = value;
  if (wanted == name(Fp32Products::blas)) return Fp32Products::blas;
  if (wanted != name(Fp32Products::onednn))
    throw ConfigError(std::string(kVariable) + ": unknown library '" + printable(wanted) + "'; use blas or onednn");
  if (!has_onednn()) throw ConfigError(std::string(kVariable) + ": this libtorch has no oneDNN; use blas");
  return Fp32Products::onednn;
}

Fp32Products& choice() {
  static Fp32Products products = initial_choice();
  return products;
}

}  // namespace

const char* name(Fp32Products products) { return products == Fp32Products::onednn ? "onednn" : "blas"; }

Fp32Products fp32_products() { return choice(); }

void choose_fp32_products(const std::string& wanted) {
  choice() = initial_choice();
  if (std::getenv(kVariable) != nullptr) return;
  if (wanted == name(Fp32Products::blas)) choice() = Fp32Products::blas;
  if (wanted == name(Fp32Products::onednn) && has_onednn()) choice() = Fp32Products::onednn;
}

Tensor onednn_product(const Tensor& a, const Tensor& b) {
  // A boxed call does not depend on the C++ types of the arguments, which change between versions.
  torch::jit::Stack stack{a, b.t(), c10::IValue(), "none", c10::List<std::optional<at::Scalar>>(), c10::IValue()};
  try {
    linear()->callBoxed(stack);
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception&) {
    // oneDNN's own exception, which libtorch's headers do not declare. It can multiply, as the trial has shown: what it
    // lacks is memory.
    throw std::bad_alloc();
  }
  return stack.at(0).toTensor();
}

}  // namespace peft
