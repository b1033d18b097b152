#include "models/target_rows.h"

#include <torch/torch.h>

namespace peft {

TargetRows select_target_rows(const std::vector<int64_t>& cu_seqlens, const Tensor& labels) {
  Tensor next = at::full_like(labels, -100);
  const int64_t tokens = labels.size(0);
  next.narrow(0, 0, tokens - 1).copy_(labels.narrow(0, 1, tokens - 1));
  std::vector<int64_t> ends;
  for (std::size_t e = 1; e < cu_seqlens.size(); ++e)
    if (cu_seqlens[e] > 0) ends.push_back(cu_seqlens[e] - 1);
  next.index_fill_(0, torch::tensor(ends, torch::kLong).to(labels.device()), -100);
  const Tensor rows = at::nonzero(next != -100).flatten();
  return {rows, next.index_select(0, rows)};
}

}  // namespace peft
