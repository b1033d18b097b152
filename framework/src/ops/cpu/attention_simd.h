#pragma once

// Causal attention for one head of one example: products of small matrices in registers, softmax over complete rows.
// Scores above the diagonal are computed only within a block of queries. Internal linkage, as vector.h.
#include <algorithm>

#include "ops/cpu/vector.h"

namespace peft::simd {
namespace {

// Registers: kRows × kColumns accumulators, kColumns of b, one broadcast.
#if PEFT_VECTOR_BYTES == 64
constexpr int kRows = 6, kColumns = 4;
#else
constexpr int kRows = 6, kColumns = 2;
#endif

inline int64_t padded(int64_t n) { return (n + kWidth - 1) / kWidth * kWidth; }

/// A matrix that is read by element.
struct View {
  const float* data;
  int64_t row, column;  ///< strides
};

template <int M, int N, bool add>
inline void tile(View a, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t depth) {
  Vec sums[M][N];
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) sums[i][j] = add ? load(c + i * ldc + j * kWidth) : Vec{};
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec row[N];
    for (int j = 0; j < N; ++j) row[j] = load(b + k * ldb + j * kWidth);
    for (int i = 0; i < M; ++i) {
      const Vec factor = splat(a.data[i * a.row + k * a.column]);
      for (int j = 0; j < N; ++j) sums[i][j] += factor * row[j];
    }
  }
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) store(c + i * ldc + j * kWidth, sums[i][j]);
  }
}

template <int N, bool add>
inline void panel(View a, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t rows, int64_t depth) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    tile<kRows, N, add>({a.data + i * a.row, a.row, a.column}, b, ldb, c + i * ldc, ldc, depth);
  }
  const View rest = {a.data + i * a.row, a.row, a.column};
  switch (rows - i) {
    case 1:
      return tile<1, N, add>(rest, b, ldb, c + i * ldc, ldc, depth);
    case 2:
      return tile<2, N, add>(rest, b, ldb, c + i * ldc, ldc, depth);
    case 3:
      return tile<3, N, add>(rest, b, ldb, c + i * ldc, ldc, depth);
    case 4:
      return tile<4, N, add>(rest, b, ldb, c + i * ldc, ldc, depth);
    case 5:
      return tile<5, N, add>(rest, b, ldb, c + i * ldc, ldc, depth);
    default:
      return;
  }
}

/// c [rows, columns] = a [rows, depth] · b [depth, columns], or += . columns: a multiple of kWidth.
template <bool add>
void multiply(View a, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t rows, int64_t columns,
              int64_t depth) {
  int64_t j = 0;
  for (; j + kColumns * kWidth <= columns; j += kColumns * kWidth) {
    panel<kColumns, add>(a, b + j, ldb, c + j, ldc, rows, depth);
  }
  switch ((columns - j) / kWidth) {
    case 1:
      return panel<1, add>(a, b + j, ldb, c + j, ldc, rows, depth);
    case 2:
      return panel<2, add>(a, b + j, ldb, c + j, ldc, rows, depth);
    case 3:
      return panel<3, add>(a, b + j, ldb, c + j, ldc, rows, depth);
    default:
      return;
  }
}

/// Rows of T as dense rows of floats, zeros up to the padded width.
template <class T>
void gather(const T* from, int64_t stride, float* to, int64_t rows, int64_t dim) {
  for (int64_t row = 0; row < rows; ++row, from += stride, to += padded(dim)) {
    in_vectors(
        dim, [&](int64_t i) { store(to + i, load(from + i)); },
        [&](int64_t i, int64_t n) { store(to + i, load(from + i, n)); });
  }
}

template <class T>
void scatter(const float* from, T* to, int64_t stride, int64_t rows, int64_t dim) {
  for (int64_t row = 0; row < rows; ++row, from += padded(dim), to += stride) {
    in_vectors(
        dim, [&](int64_t i) { store(to + i, load(from + i)); },
        [&](int64_t i, int64_t n) { store(to + i, load(from + i), n); });
  }
}

typedef float Four __attribute__((vector_size(16)));

/// to[j][i] = from[i][j] of 4 × 4.
inline void transpose_four(const float* from, int64_t from_row, float* to, int64_t to_row) {
  Four row[4];
  for (int i = 0; i < 4; ++i) std::memcpy(&row[i], from + i * from_row, sizeof(Four));
  const Four a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
  const Four b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
  const Four c = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
  const Four d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
  const Four column[4] = {__builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7),
                          __builtin_shufflevector(c, d, 0, 1, 4, 5), __builtin_shufflevector(c, d, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) std::memcpy(to + i * to_row, &column[i], sizeof(Four));
}

/// from [rows, padded(dim)] → to [padded(dim), padded(rows)], zeros after the last row. Widths are multiples of 4.
void transpose(const float* from, float* to, int64_t rows, int64_t dim) {
  const int64_t width = padded(rows), ld = padded(dim), full_rows = rows / 4 * 4;
  for (int64_t i = 0; i < ld; i += 4) {
    for (int64_t j = 0; j < full_rows; j += 4) transpose_four(from + j * ld + i, ld, to + i * width + j, width);
  }
  for (int64_t i = 0; i < dim; ++i) {
    for (int64_t j = full_rows; j < width; ++j) to[i * width + j] = j < rows ? from[j * ld + i] : 0;
  }
}

/// Allocates from a block of scratch memory.
struct Scratch {
  float* next;
  float* take(int64_t floats) {
    float* allocated = next;
    next += padded(floats);
    return allocated;
  }
};

/// e^(scale·s − shift) for the keys a query may see; zeros for the others. Returns the sum.
float exponentials(float* scores, int64_t visible, int64_t width, float scale, float shift) {
  Vec sums = {};
  int64_t i = 0;
  for (; i + kWidth <= visible; i += kWidth) {
    const Vec value = exponential(load(scores + i) * scale - shift);
    store(scores + i, value);
    sums += value;
  }
  if (i < visible) {
    alignas(PEFT_VECTOR_BYTES) float values[kWidth] = {};
    store(values, exponential(load(scores + i) * scale - shift));
    for (int64_t j = visible - i; j < kWidth; ++j) values[j] = 0;
    store(scores + i, load(values));
    sums += load(values);
    i += kWidth;
  }
  for (; i < width; i += kWidth) store(scores + i, Vec{});
  return sum(sums);
}

float highest(const float* scores, int64_t visible) {
  Vec best = splat(scores[0]);
  int64_t i = 0;
  for (; i + kWidth <= visible; i += kWidth) best = larger(best, load(scores + i));
  float value = largest(best);
  for (; i < visible; ++i) value = std::max(value, scores[i]);
  return value;
}

template <class T>
void attention(const AttentionHead<T>& h, float* memory) {
  const int64_t n = h.tokens, keys = padded(n), dim = padded(h.dim);
  Scratch scratch{memory};
  float *rows = scratch.take(n * dim), *k_t = scratch.take(dim * keys), *v = scratch.take(n * dim);
  float *scores = scratch.take(kQueries * keys), *q = scratch.take(kQueries * dim), *out = scratch.take(kQueries * dim);
  gather(h.k, h.k_stride, rows, n, h.dim);
  transpose(rows, k_t, n, h.dim);
  gather(h.v, h.v_stride, v, n, h.dim);
  for (int64_t first = 0; first < n; first += kQueries) {
    const int64_t count = std::min(kQueries, n - first), seen = padded(first + count);
    gather(h.q + first * h.q_stride, h.q_stride, q, count, h.dim);
    multiply<false>({q, dim, 1}, k_t, keys, scores, keys, count, seen, h.dim);
    float inverse[kQueries];
    for (int64_t i = 0; i < count; ++i) {
      float* row = scores + i * keys;
      const float top = highest(row, first + i + 1) * h.scale;
      const float total = exponentials(row, first + i + 1, seen, h.scale, top);
      inverse[i] = 1.0f / total;
      h.log_sum[first + i] = top + std::log(total);
    }
    multiply<false>({scores, keys, 1}, v, dim, out, dim, count, dim, first + count);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < dim; j += kWidth) store(out + i * dim + j, load(out + i * dim + j) * inverse[i]);
    }
    scatter(out, h.out + first * h.out_stride, h.out_stride, count, h.dim);
  }
}

/// ds = p · (dp − Σ out·dout) · scale, in dp's place.
void score_gradient(const float* p, float* dp, int64_t width, float inner, float scale) {
  for (int64_t j = 0; j < width; j += kWidth) store(dp + j, load(p + j) * (load(dp + j) - inner) * scale);
}

template <class T>
float inner_product(const T* a, const float* b, int64_t dim) {
  Vec products = {};
  in_vectors(
      dim, [&](int64_t i) { products += load(a + i) * load(b + i); },
      [&](int64_t i, int64_t n) { products += load(a + i, n) * load(b + i, n); });
  return sum(products);
}

template <class T>
void attention_backward(const AttentionHead<T>& h, float* memory) {
  const int64_t n = h.tokens, keys = padded(n), dim = padded(h.dim);
  Scratch scratch{memory};
  float *k = scratch.take(n * dim), *k_t = scratch.take(dim * keys), *v_t = scratch.take(dim * keys);
  float *dk = scratch.take(n * dim), *dv = scratch.take(n * dim);
  float *p = scratch.take(kQueries * keys), *ds = scratch.take(kQueries * keys);
  float *q = scratch.take(kQueries * dim), *dq = scratch.take(kQueries * dim), *dout = scratch.take(kQueries * dim);
  gather(h.v, h.v_stride, k, n, h.dim);
  transpose(k, v_t, n, h.dim);
  gather(h.k, h.k_stride, k, n, h.dim);
  transpose(k, k_t, n, h.dim);
  std::fill(dk, dk + n * dim, 0.0f);
  std::fill(dv, dv + n * dim, 0.0f);
  for (int64_t first = 0; first < n; first += kQueries) {
    const int64_t count = std::min(kQueries, n - first), end = first + count, seen = padded(end);
    gather(h.q + first * h.q_stride, h.q_stride, q, count, h.dim);
    gather(h.dout + first * h.dout_stride, h.dout_stride, dout, count, h.dim);
    multiply<false>({q, dim, 1}, k_t, keys, p, keys, count, seen, h.dim);
    multiply<false>({dout, dim, 1}, v_t, keys, ds, keys, count, seen, h.dim);
    for (int64_t i = 0; i < count; ++i) {
      exponentials(p + i * keys, first + i + 1, seen, h.scale, h.log_sum[first + i]);
      const float inner = inner_product(h.out + (first + i) * h.out_stride, dout + i * dim, h.dim);
      score_gradient(p + i * keys, ds + i * keys, seen, inner, h.scale);
    }
    multiply<false>({ds, keys, 1}, k, dim, dq, dim, count, dim, end);
    multiply<true>({ds, 1, keys}, q, dim, dk, dim, end, dim, count);
    multiply<true>({p, 1, keys}, dout, dim, dv, dim, end, dim, count);
    scatter(dq, h.dq + first * h.dq_stride, h.dq_stride, count, h.dim);
  }
  scatter(dk, h.dk, h.dk_stride, n, h.dim);
  scatter(dv, h.dv, h.dk_stride, n, h.dim);
}

}  // namespace
}  // namespace peft::simd
