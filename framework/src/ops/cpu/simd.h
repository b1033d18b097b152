#pragma once

#include <cstdint>
#include <vector>

#include "peft/base/export.h"

// The kernels' inner loops, free of torch. simd.cpp is compiled once for each instruction set.
namespace peft::simd {

/// The upper half of a float's bits.
struct Bf16 {
  uint16_t bits;
};

/// One head of one example: rows of `dim` elements, `*_stride` elements apart.
template <class T>
struct AttentionHead {
  const T *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;
  T* out;  ///< rows out_stride apart
  int64_t out_stride;
  float* log_sum;  ///< [tokens] log of the softmax's denominator: forward writes it, backward reads it
  int64_t tokens, dim;
  float scale;
  // Backward only: the gradient of out (at out_stride) and, densely [tokens, dim] at grad_stride, of q, k and v.
  const T* dout;
  int64_t dout_stride;
  T *dq, *dk, *dv;
  int64_t dq_stride, dk_stride;  ///< dv has the stride of dk
};

/// The kernels for one element type. Sizes are in elements; matrices are row-major, and dense if they have no stride.
template <class T>
struct Kernels {
  void (*rms_norm)(const T* x, const T* weight, T* y, float* rstd, int64_t rows, int64_t width, float eps);
  /// Writes dx, plus `residual` if it is not null, and recomputes the norm's output into y if that is not null.
  void (*rms_norm_backward)(const T* dy, const T* x, const T* weight, const float* rstd, const T* residual, T* dx, T* y,
                            int64_t rows, int64_t width);
  void (*swiglu)(const T* gate, const T* up, T* y, int64_t n);
  /// Also recomputes the product into y if that is not null.
  void (*swiglu_backward)(const T* dy, const T* gate, const T* up, T* dgate, T* dup, T* y, int64_t n);
  /// x rows [heads, dim] at x_stride, heads dense; cos and sin rows [dim / 2] at angle_stride; direction ±1.
  void (*rotary)(const T* x, int64_t x_stride, const float* cos, const float* sin, int64_t angle_stride, T* y,
                 int64_t tokens, int64_t heads, int64_t dim, float direction);
  /// Returns the loss of one row of logits and overwrites it with softmax − one-hot if `gradient` is set.
  float (*cross_entropy)(T* logits, int64_t width, int64_t target, bool gradient);
  void (*attention)(const AttentionHead<T>& head, float* scratch);
  void (*attention_backward)(const AttentionHead<T>& head, float* scratch);
};

/// Number of queries in a tile of bf16 attention, padded with zeros, and the maximum width of a head.
inline constexpr int64_t kTileQueries = 64, kTileWidest = 256;

/// Scores of a tile of queries with the first `seen` keys in the backward pass. All matrices are [kTileQueries, seen].
struct ScoreTile {
  const float *scores, *dp;      ///< q·kᵀ and dout·vᵀ
  const float *log_sum, *inner;  ///< of each query: see AttentionHead; Σ out·dout
  int64_t first, count, seen;    ///< the first query's position, queries, keys (a multiple of 16)
  float scale;
  Bf16 *p_pairs, *ds_pairs, *ds;  ///< softmax and the gradient of scores; pairs: rows 2i and 2i + 1 interleaved
};

/// Operations between the tile products of bf16 attention. Widths are multiples of 16, at most kTileWidest.
struct TileKernels {
  /// rows [rows, width] → [padded_rows / 2, width, 2]: rows 2i and 2i + 1 interleaved, zeros after the last row.
  void (*pack_pairs)(const Bf16* from, int64_t stride, int64_t rows, int64_t width, Bf16* to, int64_t padded_rows);
  /// rows [rows, width] → [width / 2, columns, 2]: columns 2i and 2i + 1 interleaved, zeros after the last row.
  void (*pack_columns)(const Bf16* from, int64_t stride, int64_t rows, int64_t width, Bf16* to, int64_t columns);
  /// [rows, width] → [kTileQueries, width], zeros after the last row.
  void (*copy_tile)(const Bf16* from, int64_t stride, int64_t rows, int64_t width, Bf16* to);
  /// [kTileQueries, width] → [width, kTileQueries]; scratch as large as both.
  void (*transpose_tile)(const Bf16* from, int64_t width, Bf16* to, Bf16* scratch);
  /// p = e^(scale · scores − top), zeros above the diagonal; the log of each row's sum, and 1 / sum.
  void (*softmax_tile)(const float* scores, int64_t first, int64_t count, int64_t seen, float scale, Bf16* p,
                       float* log_sum, float* inverse);
  void (*score_gradients)(const ScoreTile& tile);
  /// out[row] = Σ a·b of each row.
  void (*inner_products)(const Bf16* a, int64_t a_stride, const Bf16* b, int64_t b_stride, int64_t rows, int64_t width,
                         float* out);
  /// Dense rows, each times its factor (null: 1) → rows at `stride`.
  void (*store_rows)(const float* from, const float* factor, Bf16* to, int64_t stride, int64_t rows, int64_t width);
  /// [width, columns] → its first `rows` columns as rows at `stride`.
  void (*store_columns)(const float* from, int64_t columns, Bf16* to, int64_t stride, int64_t rows, int64_t width);
};

struct InstructionSet {
  const char* name;
  Kernels<float> fp32;
  Kernels<Bf16> bf16;
  TileKernels tiles;
};

/// Queries that attention works on at a time: enough that keys and values are rarely read from cache, few enough that
/// short examples skip most of the scores above the diagonal.
inline constexpr int64_t kQueries = 48;

/// Floats of scratch that attention and attention_backward need for a head.
int64_t attention_scratch(int64_t tokens, int64_t dim);
int64_t attention_backward_scratch(int64_t tokens, int64_t dim);

/// The instruction sets that this machine supports, the widest first.
PEFT_API const std::vector<InstructionSet>& instruction_sets();
/// The instruction set in use: the widest, unless a test or benchmark sets another.
PEFT_API const InstructionSet& active_isa();
PEFT_API void set_active_isa(const InstructionSet& set);

// One definition for each variant.
namespace generic {
InstructionSet instruction_set();
}
namespace avx2 {
InstructionSet instruction_set();
}
namespace avx512 {
InstructionSet instruction_set();
}

}  // namespace peft::simd
