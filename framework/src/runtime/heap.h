#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace peft {

/// A heap over address ranges reserved once: good-fit free lists in two levels (TLSF, Masmano et al. 2004), adjacent
/// free blocks joined at once, nothing given back. Not thread safe.
class Heap {
 public:
  static constexpr size_t kAlign = 64;

  /// In front of every block's payload.
  struct alignas(kAlign) Block {
    size_t size;    ///< with this header, a multiple of kAlign
    Block* before;  ///< next lower in address, null for the lowest
    Block* next_free;
    Block* prev_free;
    size_t requested;  ///< bytes asked for; the owner's to use
    uint8_t tag;       ///< the owner's to use
    uint8_t heap;      ///< the owner's to use
    bool free;
    void* payload() { return reinterpret_cast<char*>(this) + sizeof(Block); }
    static Block* of(void* payload) { return reinterpret_cast<Block*>(static_cast<char*>(payload) - sizeof(Block)); }
  };
  static_assert(sizeof(Block) == kAlign);

  /// `range`: bytes of address space to set aside at a time. `huge_pages`: ask the system for them.
  Heap(size_t range, bool huge_pages);

  /// Null where no block is free and the heap would have to grow.
  Block* take(size_t bytes);
  /// Bytes by which `grow` would raise reserved().
  size_t growth_for(size_t bytes) const;
  /// Adds room for a block of `bytes`. False: the system has no address space left.
  bool grow(size_t bytes);
  void give_back(Block* block);
  size_t reserved() const { return reserved_; }
  bool owns(const void* pointer) const;

 private:
  static constexpr int kFine = 5;  // 32 lists to a power of two: a block is at most 3 % larger than its list's least
  struct Range {
    char *base, *top, *end;
    Block* last;  ///< block of size 0 that ends the range
  };
  struct List {
    int power, fine;
  };
  static List list_of(size_t size);
  static size_t block_size(size_t bytes);
  Block*& head(List list) { return heads_[list.power][list.fine]; }
  bool add_range(size_t least);
  void insert(Block* block);
  void remove(Block* block);
  Block* find(size_t size);
  void split(Block* block, size_t size);

  size_t range_, reserved_ = 0;
  bool huge_pages_;
  std::vector<Range> ranges_;
  uint64_t powers_ = 0;
  std::array<uint32_t, 64> fines_{};
  std::array<std::array<Block*, 1 << kFine>, 64> heads_{};
};

}  // namespace peft
