#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Part of a matrix: `rows` rows from `row`, `columns` columns from `column`.
struct MatrixRegion {
  int64_t row, rows, column, columns;
};

/// A frozen weight in the form in which it is stored: dense here; packed or sharded in other implementations. It never
/// changes, so sites may share it. Always held by shared_ptr.
class PEFT_API FrozenWeight : public std::enable_shared_from_this<FrozenWeight> {
 public:
  FrozenWeight() = default;
  virtual ~FrozenWeight();
  FrozenWeight(const FrozenWeight&) = delete;
  FrozenWeight& operator=(const FrozenWeight&) = delete;

  /// [rows, columns] = [out, in] for a Linear, [vocabulary, hidden] for an Embedding; [hidden] for a Norm.
  virtual std::vector<int64_t> sizes() const = 0;
  int64_t rows() const { return sizes().front(); }
  int64_t columns() const { return sizes().back(); }
  /// Dtype in which the model computes with it.
  virtual torch::Dtype dtype() const = 0;
  virtual torch::Device device() const = 0;
  /// The tensors it is stored as: a name after the parameter's for each, "" for a weight that is its only tensor. The
  /// hash of the base and the memory plan see these.
  virtual NamedTensors parts() const = 0;

  /// The values in a floating-point dtype. May be the stored tensor itself, which must not be written to.
  virtual Tensor dense(torch::Dtype dtype) const = 0;
  Tensor dense() const { return dense(dtype()); }
  /// The values of a part of a matrix.
  virtual Tensor dequantize(const MatrixRegion& region, torch::Dtype dtype) const = 0;

  /// x·Wᵀ + bias, x: [..., columns]. Gradients flow to x and bias. Default: by matmul_t() and matmul(), and saves no
  /// tensor for the backward pass.
  virtual Tensor linear(const Tensor& x, const Tensor& bias) const;
  /// Rows of W for ids [...] (int64): [..., columns].
  virtual Tensor lookup(const Tensor& ids) const = 0;

  // Products without a gradient.

  /// x·Wᵀ, x: [n, columns] → [n, rows].
  virtual Tensor matmul_t(const Tensor& x) const = 0;
  /// dy·W, dy: [n, rows] → [n, columns].
  virtual Tensor matmul(const Tensor& dy) const = 0;
  /// sum += dy·W. Default: adds matmul(dy).
  virtual void add_matmul(Tensor& sum, const Tensor& dy) const;
};

/// A weight that is one tensor.
class PEFT_API DenseWeight final : public FrozenWeight {
 public:
  explicit DenseWeight(Tensor weight);
  ~DenseWeight() override;
  std::vector<int64_t> sizes() const override;
  torch::Dtype dtype() const override;
  torch::Device device() const override;
  NamedTensors parts() const override;
  Tensor dense(torch::Dtype dtype) const override;
  Tensor dequantize(const MatrixRegion& region, torch::Dtype dtype) const override;
  Tensor linear(const Tensor& x, const Tensor& bias) const override;
  Tensor lookup(const Tensor& ids) const override;
  Tensor matmul_t(const Tensor& x) const override;
  Tensor matmul(const Tensor& dy) const override;
  void add_matmul(Tensor& sum, const Tensor& dy) const override;

 private:
  Tensor weight_;
};

}  // namespace peft
