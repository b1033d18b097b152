#include "peft/data/sampler.h"

namespace peft {

int64_t Batch::supervised() const {
  int64_t count = 0;
  for (std::size_t e = 0; e + 1 < starts.size(); ++e)
    for (int64_t i = starts[e] + 1; i < starts[e + 1]; ++i) count += labels[i] != ignored_label;
  return count;
}

}  // namespace peft
