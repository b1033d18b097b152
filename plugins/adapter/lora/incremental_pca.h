#pragma once

#include <torch/types.h>

namespace lora {

/// Principal components of rows that come in batches (Ross et al. 2008, "Incremental Learning for Robust Visual
/// Tracking"), by randomised SVDs that begin alike, as peft.utils.incremental_pca does it for EVA. What is kept does
/// not grow with the rows.
class IncrementalPca {
 public:
  explicit IncrementalPca(int64_t components) : components_(components) {}
  /// rows: [n, features], n at least components().
  void fit(const torch::Tensor& rows);
  int64_t components() const { return components_; }
  const torch::Tensor& directions() const { return directions_; }            ///< [components, features], or undefined
  const torch::Tensor& singular_values() const { return singular_values_; }  ///< [components]
  const torch::Tensor& explained() const { return explained_; }              ///< shares of the variance, [components]

 private:
  void count(const torch::Tensor& rows);
  int64_t components_;
  double seen_ = 0;
  torch::Tensor mean_, variance_;  // [features] in fp64
  torch::Tensor directions_, singular_values_, explained_;
};

}  // namespace lora
