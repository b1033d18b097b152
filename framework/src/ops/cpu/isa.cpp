#include "ops/cpu/simd.h"

namespace peft::simd {

namespace {

constexpr int64_t kWidest = 16;  // floats in a vector of any variant

int64_t padded(int64_t n) { return (n + kWidest - 1) / kWidest * kWidest; }

std::vector<InstructionSet> find() {
  std::vector<InstructionSet> sets;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
    sets.push_back(avx512::instruction_set());
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back(avx2::instruction_set());
#endif
  sets.push_back(generic::instruction_set());
  return sets;
}

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
  static const std::vector<InstructionSet> sets = find();
  return sets;
}

namespace {

const InstructionSet*& current() {
  static const InstructionSet* set = &instruction_sets().front();
  return set;
}

}  // namespace

const InstructionSet& active_isa() { return *current(); }

void set_active_isa(const InstructionSet& set) { current() = &set; }

int64_t attention_scratch(int64_t tokens, int64_t dim) {
  const int64_t rows = padded(tokens), width = padded(dim);
  return 3 * rows * width + kQueries * rows + 2 * kQueries * width;
}

int64_t attention_backward_scratch(int64_t tokens, int64_t dim) {
  const int64_t rows = padded(tokens), width = padded(dim);
  return 5 * rows * width + 2 * kQueries * rows + 3 * kQueries * width;
}

}  // namespace peft::simd
