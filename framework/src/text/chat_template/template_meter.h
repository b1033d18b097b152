#pragma once
// Limits on what the template engine uses. Templates are untrusted programs and the engine does not limit them by
// itself, so cmake/patches/llama.cpp-jinja-metering.patch makes its values, containers, searches and recursive
// functions call these functions before they allocate or compute.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace peft::text {

/// Thrown by the checks below; its message names the limit.
struct TemplateLimitError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Usage of the rendering that runs in this thread.
struct TemplateMeter {
  std::size_t memory = 0;  ///< bytes allocated now
  std::size_t work = 0;    ///< bytes allocated or read since the rendering started
  int depth = 0;           ///< active RecursionGuards
};
inline thread_local TemplateMeter template_meter;

constexpr std::size_t max_template_value = 16 << 20, max_template_memory = 256 << 20;
constexpr std::size_t max_template_work = std::size_t{16} << 30, max_template_items = 200'000;
constexpr int max_template_depth = 1000;

/// Charges for reading `bytes` bytes, or for computation that takes as long.
inline void charge_work(std::size_t bytes) {
  if (bytes > max_template_work - template_meter.work) {
    template_meter.work = max_template_work;
    throw TemplateLimitError("more than 16 GiB of text and values to process");
  }
  template_meter.work += bytes;
}

/// A search may compare the entire pattern at every position.
inline void charge_search(std::size_t text_size, std::size_t pattern_size) {
  charge_work(text_size * (1 + pattern_size / 64));
}

inline void charge_memory(std::size_t bytes) {
  if (bytes > max_template_memory || template_meter.memory > max_template_memory - bytes)
    throw TemplateLimitError("more than 256 MiB of text and values in memory");
  charge_work(bytes);
  template_meter.memory += bytes;
}

inline void release_memory(std::size_t bytes) noexcept { template_meter.memory -= bytes; }

inline void check_value_size(std::size_t size) {
  if (size > max_template_value) throw TemplateLimitError("a value is larger than 16 MiB");
}

/// Checks `size * count` without overflow.
inline void check_repeated_size(std::size_t size, std::size_t count) {
  if (count > max_template_value / std::max<std::size_t>(size, 1)) check_value_size(max_template_value + 1);
}

inline void check_loop_items(std::size_t count) {
  if (count > max_template_items) throw TemplateLimitError("a loop over more than 200000 items");
}

/// One level of recursion in the engine.
class RecursionGuard {
 public:
  RecursionGuard() {
    if (template_meter.depth >= max_template_depth) throw TemplateLimitError("nested deeper than 1000");
    charge_work(256);
    ++template_meter.depth;
  }
  RecursionGuard(const RecursionGuard&) = delete;
  RecursionGuard& operator=(const RecursionGuard&) = delete;
  ~RecursionGuard() { --template_meter.depth; }
};

/// Charges the memory of a string for as long as both live: the string's own allocator is not metered.
class MeteredBytes {
 public:
  explicit MeteredBytes(std::size_t bytes) : bytes_(bytes) { charge_memory(bytes_); }
  MeteredBytes(const MeteredBytes& other) : MeteredBytes(other.bytes_) {}
  MeteredBytes(MeteredBytes&& other) noexcept : bytes_(other.bytes_) { other.bytes_ = 0; }
  MeteredBytes& operator=(MeteredBytes other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MeteredBytes() { release_memory(bytes_); }
  void grow(std::size_t bytes) {
    charge_memory(bytes);
    bytes_ += bytes;
  }

 private:
  std::size_t bytes_;
};

template <typename T>
struct MeteredAllocator {
  using value_type = T;
  MeteredAllocator() = default;
  template <typename U>
  MeteredAllocator(const MeteredAllocator<U>&) {}
  T* allocate(std::size_t count) {
    if (count > max_template_memory / sizeof(T))
      throw TemplateLimitError("more than 256 MiB of text and values in memory");
    charge_memory(count * sizeof(T));
    try {
      return std::allocator<T>().allocate(count);
    } catch (...) {
      release_memory(count * sizeof(T));
      throw;
    }
  }
  void deallocate(T* pointer, std::size_t count) noexcept {
    std::allocator<T>().deallocate(pointer, count);
    release_memory(count * sizeof(T));
  }
  bool operator==(const MeteredAllocator&) const { return true; }
};

/// Base class of the engine's values. Links all values of this thread into a list, so that reference cycles, which keep
/// themselves alive, can be found and destroyed.
class RegisteredValue {
 public:
  RegisteredValue() : next_(first_) {
    if (first_) first_->previous_ = this;
    first_ = this;
  }
  RegisteredValue(const RegisteredValue&) : RegisteredValue() {}
  RegisteredValue& operator=(const RegisteredValue&) { return *this; }
  ~RegisteredValue() {
    (previous_ ? previous_->next_ : first_) = next_;
    if (next_) next_->previous_ = previous_;
  }
  static RegisteredValue* first() { return first_; }
  RegisteredValue* next() const { return next_; }

 private:
  static inline thread_local RegisteredValue* first_ = nullptr;
  RegisteredValue *previous_ = nullptr, *next_;
};

/// Destroys the contents of a value iteratively: recursive destructors of deeply nested values would overflow the
/// stack.
template <typename Value, typename Items, typename Pairs>
void destroy_iteratively(Items& items, Pairs& pairs) {
  static thread_local std::vector<Value>* pending = nullptr;
  if (items.empty() && pairs.empty()) return;
  std::vector<Value> own_pending;
  const bool outermost = !pending;
  if (outermost) pending = &own_pending;
  for (Value& item : items) pending->push_back(std::move(item));
  for (auto& [key, item] : pairs) {
    pending->push_back(std::move(key));
    pending->push_back(std::move(item));
  }
  if (!outermost) return;
  while (!own_pending.empty()) {
    const Value last = std::move(own_pending.back());
    own_pending.pop_back();
  }
  pending = nullptr;
}

}  // namespace peft::text
