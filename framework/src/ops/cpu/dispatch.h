#pragma once

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <vector>

#include "ops/cpu/simd.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// True if the kernels of cpu/simd.h support these tensors: fp32 or bf16 on the CPU, all of one dtype.
template <class... Tensors>
bool has_kernels(const Tensor& first, const Tensors&... others) {
  const auto dtype = first.scalar_type();
  return first.is_cpu() && (dtype == torch::kFloat || dtype == torch::kBFloat16) &&
         (... && (others.is_cpu() && others.scalar_type() == dtype));
}

/// Calls f(kernels, T*) with the kernels of a dtype for which has_kernels() is true.
template <class F>
void with_kernels(torch::Dtype dtype, F f) {
  const simd::InstructionSet& set = simd::active_isa();
  if (dtype == torch::kFloat) {
    f(set.fp32, static_cast<float*>(nullptr));
  } else {
    f(set.bf16, static_cast<simd::Bf16*>(nullptr));
  }
}

template <class T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

/// Calls f(begin, count) in parallel for ranges of [0, n), n rows of `width` elements.
template <class F>
void in_parallel(int64_t n, int64_t width, F f) {
  constexpr int64_t kElements = 32768;  // per range: some microseconds of work, less is not worth a thread
  at::parallel_for(0, n, std::max<int64_t>(1, kElements / std::max<int64_t>(1, width)),
                   [&](int64_t begin, int64_t end) { f(begin, end - begin); });
}

/// Number of threads that parallel_for_tasks() uses for `tasks` tasks.
inline int64_t num_workers(size_t tasks) {
  return std::min<int64_t>(at::get_num_threads(), static_cast<int64_t>(tasks));
}

/// f(thread, next) on each of num_workers() threads, where next() returns the longest task that no thread has
/// taken yet, or null. `length`: of a task.
template <class Task, class Length, class F>
void parallel_for_tasks(std::vector<Task>& tasks, const Length& length, const F& f) {
  std::ranges::stable_sort(tasks, std::greater{}, length);
  std::atomic<size_t> taken{0};
  const auto next = [&]() -> const Task* {
    const size_t i = taken++;
    return i < tasks.size() ? &tasks[i] : nullptr;
  };
  at::parallel_for(0, num_workers(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) f(thread, next);
  });
}

}  // namespace peft
