#pragma once

#include <memory>

#include "peft/models/model.h"

namespace peft {

/// Rows of hidden states that predict a label, and these labels.
struct TargetRows {
  Tensor hidden;   ///< [n, hidden]
  Tensor targets;  ///< [n] int64
};

/// A Model with a head that predicts the next token.
class PEFT_API CausalLm : public Model {
 public:
  explicit CausalLm(DecoderConfig config);
  ~CausalLm() override;
  /// Shares the embedding's weight if the two are tied.
  Linear& lm_head() const { return *head_; }
  Linear* output_embedding() const override { return head_.get(); }
  /// Rows of hidden states → [rows, vocabulary].
  Tensor logits(const Tensor& hidden) const;
  /// The rows of hidden_states() that predict one of `labels` [T] (not shifted, -100 is ignored). Each label is
  /// predicted by the row before it in its example; the first one of an example by the last virtual token, if there is
  /// one.
  TargetRows target_rows(const PackedTokens& input, const Tensor& labels) const;
  /// An empty cache for `capacity` tokens and the adapters' virtual tokens.
  KeyValueCache make_cache(int64_t capacity) const;

 private:
  std::shared_ptr<Linear> head_;
};

}  // namespace peft
