#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace peft {

/// A heap over reserved address ranges, with two levels of segregated free lists (TLSF, Masmano et al. 2004). Adjacent
/// free blocks are merged immediately; memory is not returned to the system. Not thread-safe.
class Heap {
 public:
  static constexpr size_t kAlign = 64;

  /// Header of a block, directly before its payload.
  struct alignas(kAlign) Block {
    size_t size;    ///< bytes including this header; a multiple of kAlign
    Block* before;  ///< the block at the next lower address; null for the first one
    Block* next_free;
    Block* prev_free;
    size_t requested;  ///< for use by the owner: requested bytes
    uint8_t tag;       ///< for use by the owner
    uint8_t heap;      ///< for use by the owner
    bool free;
    void* payload() { return reinterpret_cast<char*>(this) + sizeof(Block); }
    static Block* of(void* payload) { return reinterpret_cast<Block*>(static_cast<char*>(payload) - sizeof(Block)); }
  };
  static_assert(sizeof(Block) == kAlign);

  /// Reserves address space in ranges of `range` bytes. `huge_pages` advises the kernel to use huge pages.
  Heap(size_t range, bool huge_pages);

  /// Allocates a block. Null if there is no free block of that size: call grow().
  Block* take(size_t bytes);
  /// Bytes that grow() would add to reserved().
  size_t growth_for(size_t bytes) const;
  /// Adds space for a block of `bytes`. False if the system has no address space left.
  bool grow(size_t bytes);
  void give_back(Block* block);
  size_t reserved() const { return reserved_; }
  bool owns(const void* pointer) const;

 private:
  static constexpr int kFine = 5;  // 32 lists per power of two: sizes in a list differ by at most 3 %
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
  bool add_range(size_t min_size);
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
