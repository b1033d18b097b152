#pragma once

#include "peft/nn/site.h"
#include "peft/nn/virtual_tokens.h"

namespace peft {

/// Rows of W: ids [...] (int64) → [..., hidden].
class PEFT_API Embedding : public Site {
 public:
  Embedding(SiteInfo info, int64_t rows, int64_t hidden);
  ~Embedding() override;
  Tensor forward(const Tensor& ids) const;
  int64_t rows() const { return rows_; }
  int64_t hidden() const { return hidden_; }

  /// Adds virtual tokens before each example, after those of earlier adapters.
  void add_virtual_tokens(const std::string& adapter, std::shared_ptr<VirtualTokens> tokens);
  /// Number of virtual tokens before each example; 0 while adapters are disabled.
  int64_t num_virtual_tokens() const;
  /// Their rows [num_virtual_tokens, hidden]; undefined if there are none.
  Tensor virtual_token_rows() const;

 private:
  int64_t rows_, hidden_;
  std::vector<std::shared_ptr<VirtualTokens>> virtual_tokens_;
};

}  // namespace peft
