#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "peft/base/export.h"
#include "peft/data/sampler.h"
#include "peft/models/causal_lm.h"

namespace peft {

namespace detail {
class CoreCallback;
}

/// A batch's tokens and labels on the model's device.
PEFT_API PackedTokens to_packed_tokens(const Batch& batch, torch::Device device);
PEFT_API Tensor to_labels(const Batch& batch, torch::Device device);

/// A forward pass of one batch, as an objective sees it. Results are computed when they are first needed, and the
/// model's layers run once (twice if gradients are needed only later). Exceptions of the model pass through an
/// objective's calls unchanged.
class PEFT_API Pass {
 public:
  Pass(const CausalLm& model, const Batch& batch);
  /// labels: [T] int64, ignored_label (−100) at positions that are not targets; not shifted.
  Pass(const CausalLm& model, PackedTokens input, Tensor labels);
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  const PackedTokens& input() const { return input_; }
  const Tensor& labels() const { return labels_; }
  /// Labels that a position predicts, [n] int64. Each is predicted by the position before it in its own example, the
  /// first one only if virtual tokens precede it.
  const Tensor& targets() const;
  /// Sum of the targets' cross-entropy, with its gradient; fp32, or fp64 in an fp64 model. Logits exist in chunks of a
  /// few hundred rows.
  Tensor cross_entropy_sum() const;
  /// Calls body(logits [rows, vocabulary], targets [rows], first row) for consecutive chunks of the targets, with the
  /// logits that predict them, without gradients.
  void for_each_logits(
      const std::function<void(const Tensor& logits, const Tensor& targets, int64_t first)>& body) const;

 private:
  friend class Objective;
  template <class Work>
  auto in_core(Work&& work) const;
  const TargetRows& target_rows() const;
  const CausalLm& model_;
  PackedTokens input_;
  Tensor labels_;
  mutable std::optional<TargetRows> target_rows_;
  mutable bool has_grad_ = false;                 ///< target_rows_ were computed with gradients
  mutable detail::CoreCallback* core_ = nullptr;  ///< while an objective's call runs
};

}  // namespace peft
