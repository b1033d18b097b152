#pragma once

// Operations around the tile products of bf16 attention: packing operands in the order that the products read, softmax
// and its gradient. Widths are multiples of 16. Internal linkage, as vector.h.
#include "ops/cpu/attention_simd.h"

namespace peft::simd {
namespace {

inline Bits bits_of(Halves halves) { return __builtin_convertvector(halves, Bits); }
inline Halves load_halves(const Bf16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return halves;
}
/// Interleaves two rows.
inline void store_pairs(Bf16* to, Halves low, Halves high) {
  const Bits bits = bits_of(low) | (bits_of(high) << 16);
  std::memcpy(to, &bits, sizeof(bits));
}

void pack_pairs(const Bf16* from, int64_t stride, int64_t rows, int64_t width, Bf16* to, int64_t padded_rows) {
  for (int64_t row = 0; row < padded_rows; row += 2, from += 2 * stride, to += 2 * width) {
    for (int64_t i = 0; i < width; i += kWidth)
      store_pairs(to + 2 * i, row < rows ? load_halves(from + i) : Halves{},
                  row + 1 < rows ? load_halves(from + stride + i) : Halves{});
  }
}

/// Transposes pairs, each as one 32-bit word. Rows: a multiple of 4.
void transpose_words(const Bf16* from, int64_t stride, int64_t rows, int64_t words, Bf16* to, int64_t columns) {
  const auto* in = reinterpret_cast<const float*>(from);
  auto* out = reinterpret_cast<float*>(to);
  for (int64_t row = 0; row < rows; row += 4)
    for (int64_t i = 0; i < words; i += 4)
      transpose_four(in + row * (stride / 2) + i, stride / 2, out + i * columns + row, columns);
}

void pack_columns(const Bf16* from, int64_t stride, int64_t rows, int64_t width, Bf16* to, int64_t columns) {
  const int64_t full_rows = rows / 4 * 4, words = width / 2;
  transpose_words(from, stride, full_rows, words, to, columns);
  for (int64_t i = 0; i < words; ++i) {
    for (int64_t row = full_rows; row < columns; ++row)
      for (int64_t k = 0; k < 2; ++k)
        to[2 * (i * columns + row) + k] = row < rows ? from[row * stride + 2 * i + k] : Bf16{0};
  }
}

void transpose_tile(const Bf16* from, int64_t width, Bf16* to, Bf16* scratch) {
  pack_pairs(from, width, kTileQueries, width, scratch, kTileQueries);
  transpose_words(scratch, 2 * width, kTileQueries / 2, width, to, kTileQueries / 2);
}

void copy_tile(const Bf16* from, int64_t stride, int64_t rows, int64_t width, Bf16* to) {
  for (int64_t row = 0; row < rows; ++row) std::memcpy(to + row * width, from + row * stride, 2 * width);
  std::memset(to + rows * width, 0, 2 * (kTileQueries - rows) * width);
}

/// v with zeros for the elements i with first + i >= visible.
inline Vec visible_part(Vec v, int64_t first, int64_t visible) {
  Ints index;
  for (int i = 0; i < kWidth; ++i) index[i] = i;
  return index < static_cast<int32_t>(visible - first) ? v : Vec{};
}

void softmax_tile(const float* scores, int64_t first, int64_t count, int64_t seen, float scale, Bf16* p, float* log_sum,
                  float* inverse) {
  for (int64_t i = 0; i < count; ++i, scores += seen, p += seen) {
    const int64_t visible = first + i + 1;
    const float top = highest(scores, visible) * scale;
    Vec sums = {};
    for (int64_t j = 0; j < seen; j += kWidth) {
      Vec value = exponential(load(scores + j) * scale - top);
      if (j + kWidth > visible) value = visible_part(value, j, visible);
      store(p + j, value);
      sums += value;
    }
    const float total = sum(sums);
    inverse[i] = 1.0f / total;
    log_sum[i] = top + std::log(total);
  }
}

void score_gradients(const ScoreTile& t) {
  const auto row = [&](int64_t i, int64_t j, Vec& p, Vec& ds) {
    if (i >= t.count) {
      p = ds = Vec{};
      return;
    }
    const int64_t at = i * t.seen + j, visible = t.first + i + 1;
    p = exponential(load(t.scores + at) * t.scale - t.log_sum[i]);
    if (j + kWidth > visible) p = visible_part(p, j, visible);
    ds = p * (load(t.dp + at) - t.inner[i]) * t.scale;
  };
  for (int64_t i = 0; i < kTileQueries; i += 2) {
    for (int64_t j = 0; j < t.seen; j += kWidth) {
      Vec p0, p1, ds0, ds1;
      row(i, j, p0, ds0);
      row(i + 1, j, p1, ds1);
      const int64_t at = i * t.seen + j, pair = i * t.seen + 2 * j;
      const Halves low = to_halves(ds0), high = to_halves(ds1);
      store_pairs(t.p_pairs + pair, to_halves(p0), to_halves(p1));
      store_pairs(t.ds_pairs + pair, low, high);
      std::memcpy(t.ds + at, &low, sizeof(low));
      std::memcpy(t.ds + at + t.seen, &high, sizeof(high));
    }
  }
}

void inner_products(const Bf16* a, int64_t a_stride, const Bf16* b, int64_t b_stride, int64_t rows, int64_t width,
                    float* out) {
  for (int64_t row = 0; row < rows; ++row, a += a_stride, b += b_stride) {
    Vec products = {};
    for (int64_t i = 0; i < width; i += kWidth) products += load(a + i) * load(b + i);
    out[row] = sum(products);
  }
}

void store_rows(const float* from, const float* factor, Bf16* to, int64_t stride, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, from += width, to += stride) {
    const Vec f = splat(factor == nullptr ? 1.0f : factor[row]);
    for (int64_t i = 0; i < width; i += kWidth) store(to + i, load(from + i) * f);
  }
}

void store_columns(const float* from, int64_t columns, Bf16* to, int64_t stride, int64_t rows, int64_t width) {
  float lines[4 * kTileWidest];
  for (int64_t row = 0; row < rows; row += 4) {
    for (int64_t i = 0; i < width; i += 4) transpose_four(from + i * columns + row, columns, lines + i, width);
    store_rows(lines, nullptr, to + row * stride, stride, std::min<int64_t>(4, rows - row), width);
  }
}

}  // namespace
}  // namespace peft::simd
