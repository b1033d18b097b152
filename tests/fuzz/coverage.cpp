// GCC calls __sanitizer_cov_trace_pc at each branch of sources compiled with -fsanitize-coverage=trace-pc, which this
// one is not.
#include "coverage.h"

#include <array>
#include <cstdint>

extern "C" const char __executable_start;
extern "C" void __sanitizer_cov_trace_pc();

namespace {

std::array<uint64_t, 1 << 13> reached, known;  // a byte for each hash of two consecutive branches
uint64_t last_place = 0;

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
  const auto address = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  const uint64_t place = (address - reinterpret_cast<uintptr_t>(&__executable_start)) * 0x9E3779B97F4A7C15u >> 48;
  reinterpret_cast<unsigned char*>(reached.data())[place ^ last_place] = 1;
  last_place = place >> 1;
}

namespace peft::fuzz {

void begin_coverage() {
  reached.fill(0);
  last_place = 0;
}

bool is_new_coverage() {
  bool is_new = false;
  for (std::size_t i = 0; i < reached.size(); ++i) {
    if ((reached[i] & ~known[i]) == 0) continue;
    known[i] |= reached[i];
    is_new = true;
  }
  return is_new;
}

std::size_t coverage() {
  std::size_t count = 0;
  for (const uint64_t eight : known) count += static_cast<std::size_t>(__builtin_popcountll(eight));
  return count;
}

}  // namespace peft::fuzz
