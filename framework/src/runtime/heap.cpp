#include "runtime/heap.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace peft {

namespace {

constexpr size_t kPage = size_t{2} << 20;  // a huge page, and the step of growth

#ifdef PEFT_POISON
extern "C" void __asan_poison_memory_region(const volatile void*, size_t);
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t);
/// Makes AddressSanitizer report accesses to these bytes.
void close(const void* from, size_t bytes) { __asan_poison_memory_region(from, bytes); }
void open(const void* from, size_t bytes) { __asan_unpoison_memory_region(from, bytes); }
#else
void close(const void*, size_t) {}
void open(const void*, size_t) {}
#endif

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

Heap::Block* after(Heap::Block* block) {
  return reinterpret_cast<Heap::Block*>(reinterpret_cast<char*>(block) + block->size);
}

}  // namespace

Heap::Heap(size_t range, bool huge_pages) : range_(range), huge_pages_(huge_pages) {}

size_t Heap::block_size(size_t bytes) { return round_up(bytes, kAlign) + sizeof(Block); }

Heap::List Heap::list_of(size_t size) {
  const size_t units = size / kAlign;
  const int power = std::bit_width(units) - 1;
  const size_t rest = units - (size_t{1} << power);
  const size_t fine = power >= kFine ? rest >> (power - kFine) : rest << (kFine - power);
  return {power, static_cast<int>(fine)};
}

void Heap::insert(Block* block) {
  const List list = list_of(block->size);
  Block*& first = head(list);
  block->free = true;
  block->prev_free = nullptr;
  block->next_free = first;
  if (first) first->prev_free = block;
  first = block;
  powers_ |= uint64_t{1} << list.power;
  fines_[list.power] |= uint32_t{1} << list.fine;
}

void Heap::remove(Block* block) {
  const List list = list_of(block->size);
  if (block->prev_free) {
    block->prev_free->next_free = block->next_free;
  } else if (!(head(list) = block->next_free)) {
    fines_[list.power] &= ~(uint32_t{1} << list.fine);
    if (!fines_[list.power]) powers_ &= ~(uint64_t{1} << list.power);
  }
  if (block->next_free) block->next_free->prev_free = block->prev_free;
  block->free = false;
}

Heap::Block* Heap::find(size_t size) {
  const List list = list_of(size);
  // Blocks in the list of this size can be smaller than it. Takes the smallest that fits among the first 32.
  Block* best = nullptr;
  int checked = 0;
  for (Block* block = head(list); block && checked < 32; block = block->next_free, ++checked) {
    if (block->size >= size && (!best || block->size < best->size)) best = block;
  }
  if (best) return best;
  const uint32_t finer = list.fine == 31 ? 0 : fines_[list.power] & (~uint32_t{0} << (list.fine + 1));
  if (finer) return head({list.power, std::countr_zero(finer)});
  const uint64_t larger = list.power == 63 ? 0 : powers_ & (~uint64_t{0} << (list.power + 1));
  if (!larger) return nullptr;
  const int power = std::countr_zero(larger);
  return head({power, std::countr_zero(fines_[power])});
}

void Heap::split(Block* block, size_t size) {
  const size_t rest = block->size - size;
  if (rest < sizeof(Block) + kAlign) return;
  block->size = size;
  Block* tail = after(block);
  tail->size = rest;
  tail->before = block;
  after(tail)->before = tail;
  insert(tail);
}

Heap::Block* Heap::take(size_t bytes) {
  const size_t size = block_size(bytes);
  Block* block = find(size);
  if (!block) return nullptr;
  remove(block);
  split(block, size);
  open(block->payload(), bytes);
  return block;
}

void Heap::give_back(Block* block) {
  close(block, block->size);
  Block* next = after(block);
  if (next->free) {
    remove(next);
    block->size += next->size;
  }
  if (block->before && block->before->free) {
    Block* before = block->before;
    remove(before);
    before->size += block->size;
    block = before;
  }
  after(block)->before = block;
  insert(block);
}

bool Heap::add_range(size_t min_size) {
  for (size_t size = std::max(range_, round_up(min_size, kPage)); size >= min_size; size /= 2) {
    void* base =
        mmap(nullptr, size + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) continue;
    char* aligned = reinterpret_cast<char*>(round_up(reinterpret_cast<size_t>(base), kPage));
    // One call for the entire range: a call per block would cost more than the page faults that it saves.
    if (huge_pages_) madvise(aligned, size, MADV_HUGEPAGE);
    Range range{aligned, aligned + sizeof(Block), aligned + size / kPage * kPage, reinterpret_cast<Block*>(aligned)};
    *range.last = Block{0, nullptr, nullptr, nullptr, 0, 0, 0, false};
    range.top = aligned;
    ranges_.push_back(range);
    return true;
  }
  return false;
}

size_t Heap::growth_for(size_t bytes) const {
  size_t need = block_size(bytes) + sizeof(Block);  // including the block that ends the range
  if (!ranges_.empty()) {
    const Range& range = ranges_.back();
    const Block* end = range.last;
    size_t usable = range.top > range.base ? static_cast<size_t>(range.top - reinterpret_cast<const char*>(end)) : 0;
    if (end->before && end->before->free) usable += end->before->size;
    const size_t more = round_up(std::max<size_t>(need - std::min(need, usable), 1), kPage);
    if (more <= static_cast<size_t>(range.end - range.top)) return more;
  }
  return round_up(need, kPage);
}

bool Heap::grow(size_t bytes) {
  const size_t more = growth_for(bytes);
  if (ranges_.empty() || more > static_cast<size_t>(ranges_.back().end - ranges_.back().top)) {
    if (!add_range(more)) return false;
  }
  Range& range = ranges_.back();
  range.top += more;
  reserved_ += more;
  Block* block = range.last;
  block->size = static_cast<size_t>(range.top - reinterpret_cast<char*>(block)) - sizeof(Block);
  range.last = after(block);
  *range.last = Block{0, block, nullptr, nullptr, 0, 0, 0, false};
  close(range.last, sizeof(Block));
  give_back(block);
  return true;
}

bool Heap::owns(const void* pointer) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& range) {
    return pointer >= static_cast<const void*>(range.base) && pointer < static_cast<const void*>(range.end);
  });
}

}  // namespace peft
