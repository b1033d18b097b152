#include "peft/ops/frozen_weight.h"

#include <torch/torch.h>

#include "ops/matmul.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// Carries a weight through autograd, which saves only tensors by itself.
struct WeightReference : torch::CustomClassHolder {
  std::shared_ptr<const FrozenWeight> weight;
};

struct FrozenProduct : torch::autograd::Function<FrozenProduct> {
  static Variable forward(AutogradContext* ctx, const Variable& x,
                          const c10::intrusive_ptr<WeightReference>& reference) {
    ctx->saved_data["weight"] = c10::IValue::make_capsule(reference);
    auto shape = x.sizes().vec();
    shape.back() = reference->weight->rows();
    return reference->weight->matmul_t(x.reshape({-1, x.size(-1)})).view(shape);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto reference = c10::static_intrusive_pointer_cast<WeightReference>(ctx->saved_data["weight"].toCapsule());
    auto shape = grads[0].sizes().vec();
    const Tensor rows = grads[0].reshape({-1, shape.back()});
    shape.back() = reference->weight->columns();
    return {reference->weight->matmul(rows).view(shape), Variable()};
  }
};

}  // namespace

FrozenWeight::~FrozenWeight() = default;

Tensor FrozenWeight::linear(const Tensor& x, const Tensor& bias) const {
  auto reference = c10::make_intrusive<WeightReference>();
  reference->weight = shared_from_this();
  const Tensor y = FrozenProduct::apply(x, reference);
  return bias.defined() ? y + bias : y;
}

void FrozenWeight::add_matmul(Tensor& sum, const Tensor& dy) const { sum.add_(matmul(dy)); }

DenseWeight::DenseWeight(Tensor weight) : weight_(std::move(weight)) {
  TORCH_CHECK(weight_.defined() && weight_.dim() > 0, "a dense weight needs a vector or a matrix");
}
DenseWeight::~DenseWeight() = default;

std::vector<int64_t> DenseWeight::sizes() const { return weight_.sizes().vec(); }
torch::Dtype DenseWeight::dtype() const { return weight_.scalar_type(); }
torch::Device DenseWeight::device() const { return weight_.device(); }
NamedTensors DenseWeight::parts() const { return {{"", weight_}}; }
Tensor DenseWeight::dense(torch::Dtype dtype) const { return weight_.to(dtype); }

Tensor DenseWeight::dequantize(const MatrixRegion& r, torch::Dtype dtype) const {
  return weight_.narrow(0, r.row, r.rows).narrow(1, r.column, r.columns).to(dtype);
}

Tensor DenseWeight::linear(const Tensor& x, const Tensor& bias) const { return frozen_linear(x, weight_, bias); }
Tensor DenseWeight::lookup(const Tensor& ids) const { return at::embedding(weight_, ids); }
Tensor DenseWeight::matmul_t(const Tensor& x) const { return gemm(x, weight_.t()); }
Tensor DenseWeight::matmul(const Tensor& dy) const { return gemm(dy, weight_); }
void DenseWeight::add_matmul(Tensor& sum, const Tensor& dy) const { add_gemm(sum, dy, weight_); }

}  // namespace peft
