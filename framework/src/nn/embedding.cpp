#include "peft/nn/embedding.h"

#include <torch/types.h>

#include "nn/module_check.h"
#include "nn/prefix.h"

namespace peft {

Embedding::Embedding(SiteInfo info, int64_t rows, int64_t hidden)
    : Site(std::move(info)), rows_(rows), hidden_(hidden) {}
Embedding::~Embedding() = default;

Tensor Embedding::forward(const Tensor& ids) const {
  return apply_layers(ids, [this](const Tensor& v) {
    const Tensor copy = active_copy("weight");
    return copy.defined() ? at::embedding(copy, v) : base_weight()->lookup(v);
  });
}

void Embedding::add_virtual_tokens(const std::string& adapter, std::shared_ptr<VirtualTokens> tokens) {
  add_adapter_module(adapter, tokens);
  virtual_tokens_.push_back(std::move(tokens));
}

int64_t Embedding::num_virtual_tokens() const {
  int64_t count = 0;
  if (adapted())
    for (const auto& tokens : virtual_tokens_) count += tokens->count();
  return count;
}

Tensor Embedding::virtual_token_rows() const {
  std::vector<Tensor> rows;
  if (adapted())
    for (const auto& tokens : virtual_tokens_) rows.push_back(checked_rows(*this, *tokens));
  return concatenated(rows);
}

}  // namespace peft
