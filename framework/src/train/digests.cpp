#include "train/digests.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <atomic>

#include "base/digest.h"

namespace peft {

StringList digests_of(const NamedTensors& tensors) {
  StringList digests(tensors.size());
  const auto count = static_cast<int64_t>(tensors.size());
  std::atomic<int64_t> next = 0;
  // Each thread takes the next tensor, because their sizes differ widely.
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++) {
      const Tensor host = tensors[static_cast<std::size_t>(i)].second.detach().cpu().contiguous();
      Digest digest;
      digest.add(host.data_ptr(), host.nbytes());
      digests[static_cast<std::size_t>(i)] = digest.hex();
    }
  });
  return digests;
}

}  // namespace peft
