#pragma once

#include <torch/types.h>

namespace lora {

/// Principal components of rows given in batches (Ross et al. 2008, "Incremental Learning for Robust Visual
/// Tracking"), by randomized SVDs with a fixed seed, as in HF PEFT's peft.utils.incremental_pca for EVA. Its size
/// does not depend on the number of rows.
class IncrementalPca {
 public:
  explicit IncrementalPca(int64_t components) : components_(components) {}
  /// rows: [n, features], n at least components().
  void fit(const torch::Tensor& rows);
  int64_t components() const { return components_; }
  const torch::Tensor& directions() const { return directions_; }            ///< [components, features], or undefined
  const torch::Tensor& singular_values() const { return singular_values_; }  ///< [components]
  const torch::Tensor& explained_variance_ratios() const {
    return explained_variance_ratios_;
  }  ///< explained variance ratios, [components]

 private:
  void update_moments(const torch::Tensor& rows);
  int64_t components_;
  double num_rows_ = 0;
  torch::Tensor mean_, variance_;  // [features] in fp64
  torch::Tensor directions_, singular_values_, explained_variance_ratios_;
};

}  // namespace lora
