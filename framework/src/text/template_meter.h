#pragma once
// What the template engine uses up. It is not built to run programs of strangers: the engine is patched so that its
// values, their containers and its recursive functions count here, before anything is made.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace peft::text {

struct TemplateLimit : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Of the rendering that runs in this thread.
struct TemplateMeter {
  std::size_t held = 0;   ///< bytes
  std::size_t spent = 0;  ///< bytes made or looked at since it began
  int depth = 0;
};
inline thread_local TemplateMeter template_meter;

constexpr std::size_t max_template_value = 16 << 20, max_template_held = 256 << 20;
constexpr std::size_t max_template_spent = std::size_t{16} << 30, max_template_items = 200'000;
constexpr int max_template_depth = 1000;

inline void spend(std::size_t bytes) {
  if (bytes > max_template_spent - template_meter.spent) {
    template_meter.spent = max_template_spent;
    throw TemplateLimit("more than 16 GiB of text and values to work on");
  }
  template_meter.spent += bytes;
}

inline void hold(std::size_t bytes) {
  if (bytes > max_template_held || template_meter.held > max_template_held - bytes)
    throw TemplateLimit("more than 256 MiB of text and values at once");
  spend(bytes);
  template_meter.held += bytes;
}

inline void release(std::size_t bytes) noexcept { template_meter.held -= bytes; }

inline void limit_value(std::size_t size) {
  if (size > max_template_value) throw TemplateLimit("a value grows beyond 16 MiB");
}

inline void limit_product(std::size_t size, std::size_t times) {
  if (times > max_template_value / std::max<std::size_t>(size, 1)) limit_value(max_template_value + 1);
}

inline void limit_items(std::size_t count) {
  if (count > max_template_items) throw TemplateLimit("a loop over more than 200000 items");
}

/// A search may compare all of what is sought at each place.
inline void spend_search(std::size_t text, std::size_t sought) { spend(text * (1 + sought / 64)); }

/// One level of a recursion of the engine.
class Nested {
 public:
  Nested() {
    if (template_meter.depth >= max_template_depth) throw TemplateLimit("nested deeper than 1000");
    spend(256);
    ++template_meter.depth;
  }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;
  ~Nested() { --template_meter.depth; }
};

/// Bytes of a text, counted as long as it is held.
class Held {
 public:
  explicit Held(std::size_t bytes) : bytes_(bytes) { hold(bytes_); }
  Held(const Held& other) : Held(other.bytes_) {}
  Held(Held&& other) noexcept : bytes_(other.bytes_) { other.bytes_ = 0; }
  Held& operator=(Held other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Held() { release(bytes_); }
  void grow(std::size_t bytes) {
    hold(bytes);
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
    if (count > max_template_held / sizeof(T)) throw TemplateLimit("more than 256 MiB of text and values at once");
    hold(count * sizeof(T));
    try {
      return std::allocator<T>().allocate(count);
    } catch (...) {
      release(count * sizeof(T));
      throw;
    }
  }
  void deallocate(T* place, std::size_t count) noexcept {
    std::allocator<T>().deallocate(place, count);
    release(count * sizeof(T));
  }
  bool operator==(const MeteredAllocator&) const { return true; }
};

/// All values of this thread, so that those that hold one another can be found.
class Listed {
 public:
  Listed() : next_(first_) {
    if (first_) first_->previous_ = this;
    first_ = this;
  }
  Listed(const Listed&) : Listed() {}
  Listed& operator=(const Listed&) { return *this; }
  ~Listed() {
    (previous_ ? previous_->next_ : first_) = next_;
    if (next_) next_->previous_ = previous_;
  }
  static Listed* first() { return first_; }
  Listed* next() const { return next_; }

 private:
  static inline thread_local Listed* first_ = nullptr;
  Listed *previous_ = nullptr, *next_;
};

/// Destroys values one after another: a deep one would take the stack, if each destroyed what it holds.
template <typename Value, typename Items, typename Pairs>
void destroy_flat(Items& items, Pairs& pairs) {
  static thread_local std::vector<Value>* waiting = nullptr;
  if (items.empty() && pairs.empty()) return;
  std::vector<Value> own;
  const bool outermost = !waiting;
  if (outermost) waiting = &own;
  for (Value& item : items) waiting->push_back(std::move(item));
  for (auto& [key, item] : pairs) {
    waiting->push_back(std::move(key));
    waiting->push_back(std::move(item));
  }
  if (!outermost) return;
  while (!own.empty()) {
    const Value last = std::move(own.back());
    own.pop_back();
  }
  waiting = nullptr;
}

}  // namespace peft::text
