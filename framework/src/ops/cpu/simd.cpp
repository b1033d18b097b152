// Element-wise kernels. Compiled once for each instruction set; see simd.cmake.
#include "ops/cpu/simd.h"

#include "ops/cpu/attention_simd.h"
#include "ops/cpu/tiles_simd.h"
#include "ops/cpu/vector.h"

namespace peft::simd {
namespace {

template <class T>
void rms_norm(const T* x, const T* weight, T* y, float* rstd, int64_t rows, int64_t width, float eps) {
  for (int64_t row = 0; row < rows; ++row, x += width, y += width) {
    Vec squares = {};
    in_vectors(
        width, [&](int64_t i) { squares += load(x + i) * load(x + i); },
        [&](int64_t i, int64_t n) { squares += load(x + i, n) * load(x + i, n); });
    const float factor = 1.0f / std::sqrt(sum(squares) / static_cast<float>(width) + eps);
    in_vectors(
        width, [&](int64_t i) { store(y + i, rounded<T>(load(x + i) * factor) * load(weight + i)); },
        [&](int64_t i, int64_t n) { store(y + i, rounded<T>(load(x + i, n) * factor) * load(weight + i, n), n); });
    rstd[row] = factor;
  }
}

/// dx = rstd · (g − x̂ · mean(g · x̂)) with g = dy · w.
template <class T>
void rms_norm_backward(const T* dy, const T* x, const T* weight, const float* rstd, const T* residual, T* dx, T* y,
                       int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, dy += width, x += width, dx += width) {
    Vec products = {};
    in_vectors(
        width, [&](int64_t i) { products += rounded<T>(load(dy + i) * load(weight + i)) * load(x + i); },
        [&](int64_t i, int64_t n) { products += rounded<T>(load(dy + i, n) * load(weight + i, n)) * load(x + i, n); });
    const float factor = rstd[row];
    const float pull = sum(products) * factor * factor / static_cast<float>(width);
    const auto slope = [&](Vec d, Vec v, Vec w) { return (rounded<T>(d * w) - v * pull) * factor; };
    const auto plus = [](Vec gradient, Vec other) { return rounded<T>(gradient) + other; };
    const T* other = residual == nullptr ? dx : residual;
    in_vectors(
        width,
        [&](int64_t i) {
          const Vec v = load(x + i), w = load(weight + i), gradient = slope(load(dy + i), v, w);
          store(dx + i, residual == nullptr ? gradient : plus(gradient, load(other + i)));
          if (y != nullptr) store(y + i, rounded<T>(v * factor) * w);
        },
        [&](int64_t i, int64_t n) {
          const Vec v = load(x + i, n), w = load(weight + i, n), gradient = slope(load(dy + i, n), v, w);
          store(dx + i, residual == nullptr ? gradient : plus(gradient, load(other + i, n)), n);
          if (y != nullptr) store(y + i, rounded<T>(v * factor) * w, n);
        });
    if (residual != nullptr) residual += width;
    if (y != nullptr) y += width;
  }
}

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(-x)); }

template <class T>
void swiglu(const T* gate, const T* up, T* y, int64_t n) {
  const auto value = [](Vec g, Vec u) { return rounded<T>(g * sigmoid(g)) * u; };
  in_vectors(
      n, [&](int64_t i) { store(y + i, value(load(gate + i), load(up + i))); },
      [&](int64_t i, int64_t m) { store(y + i, value(load(gate + i, m), load(up + i, m)), m); });
}

template <class T>
void swiglu_backward(const T* dy, const T* gate, const T* up, T* dgate, T* dup, T* y, int64_t n) {
  const auto slope = [](Vec g, Vec s) { return s * (1.0f + g * (1.0f - s)); };
  in_vectors(
      n,
      [&](int64_t i) {
        const Vec d = load(dy + i), g = load(gate + i), u = load(up + i), s = sigmoid(g), active = rounded<T>(g * s);
        store(dup + i, d * active);
        store(dgate + i, rounded<T>(d * u) * slope(g, s));
        if (y != nullptr) store(y + i, active * u);
      },
      [&](int64_t i, int64_t m) {
        const Vec d = load(dy + i, m), g = load(gate + i, m), u = load(up + i, m), s = sigmoid(g);
        const Vec active = rounded<T>(g * s);
        store(dup + i, d * active, m);
        store(dgate + i, rounded<T>(d * u) * slope(g, s), m);
        if (y != nullptr) store(y + i, active * u, m);
      });
}

template <class T>
void rotary(const T* x, int64_t x_stride, const float* cos, const float* sin, int64_t angle_stride, T* y,
            int64_t tokens, int64_t heads, int64_t dim, float direction) {
  const int64_t half = dim / 2;
  for (int64_t token = 0; token < tokens; ++token, x += x_stride, cos += angle_stride, sin += angle_stride) {
    for (int64_t head = 0; head < heads; ++head, y += dim) {
      const T *low = x + head * dim, *high = low + half;
      in_vectors(
          half,
          [&](int64_t i) {
            const Vec a = load(low + i), b = load(high + i), c = load(cos + i), s = load(sin + i) * direction;
            store(y + i, rounded<T>(a * c) - rounded<T>(b * s));
            store(y + half + i, rounded<T>(b * c) + rounded<T>(a * s));
          },
          [&](int64_t i, int64_t n) {
            const Vec a = load(low + i, n), b = load(high + i, n), c = load(cos + i, n);
            const Vec s = load(sin + i, n) * direction;
            store(y + i, rounded<T>(a * c) - rounded<T>(b * s), n);
            store(y + half + i, rounded<T>(b * c) + rounded<T>(a * s), n);
          });
    }
  }
}

template <class T>
float value_of(const T* from) {
  return load(from, 1)[0];
}

template <class T>
float cross_entropy(T* logits, int64_t width, int64_t target, bool gradient) {
  const float target_logit = value_of(logits + target);
  Vec highest = splat(target_logit);
  in_vectors(
      width, [&](int64_t i) { highest = larger(highest, load(logits + i)); },
      [&](int64_t i, int64_t n) {
        for (; n > 0; --n, ++i) highest = larger(highest, splat(value_of(logits + i)));
      });
  const float top = largest(highest);
  // The target's term is not part of the sum: 1 − p computed from the others stays exact for a confident prediction,
  // where p − 1 would round to 0.
  store(logits + target, splat(-INFINITY), 1);
  Vec sums = {};
  in_vectors(
      width, [&](int64_t i) { sums += exponential(load(logits + i) - top); },
      [&](int64_t i, int64_t n) {
        for (; n > 0; --n, ++i) sums[0] += exponential(splat(value_of(logits + i) - top))[0];
      });
  const float others = sum(sums), total = others + std::exp(target_logit - top), inverse = 1.0f / total;
  if (gradient) {
    in_vectors(
        width, [&](int64_t i) { store(logits + i, exponential(load(logits + i) - top) * inverse); },
        [&](int64_t i, int64_t n) { store(logits + i, exponential(load(logits + i, n) - top) * inverse, n); });
    store(logits + target, splat(-others * inverse), 1);
  } else {
    store(logits + target, splat(target_logit), 1);
  }
  return target_logit == top ? std::log1p(others) : std::log(total) + (top - target_logit);
}

template <class T>
constexpr Kernels<T> all() {
  return {rms_norm<T>, rms_norm_backward<T>, swiglu<T>,    swiglu_backward<T>,
          rotary<T>,   cross_entropy<T>,     attention<T>, attention_backward<T>};
}

constexpr TileKernels all_of_tiles() {
  return {pack_pairs,      pack_columns,   copy_tile,  transpose_tile, softmax_tile,
          score_gradients, inner_products, store_rows, store_columns};
}

}  // namespace

namespace PEFT_SIMD_VARIANT {
#define PEFT_STRING(x) #x
#define PEFT_NAME(x) PEFT_STRING(x)
InstructionSet instruction_set() { return {PEFT_NAME(PEFT_SIMD_VARIANT), all<float>(), all<Bf16>(), all_of_tiles()}; }
}  // namespace PEFT_SIMD_VARIANT

}  // namespace peft::simd
