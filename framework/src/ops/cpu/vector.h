#pragma once

// A vector of floats as wide as the registers of the instruction set being compiled for. Everything has internal
// linkage, because each variant compiles the same names to different code.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "ops/cpu/simd.h"

#ifndef PEFT_SIMD_VARIANT
#define PEFT_SIMD_VARIANT generic
#endif
#if defined(__AVX512F__)
#define PEFT_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define PEFT_VECTOR_BYTES 32
#else
#define PEFT_VECTOR_BYTES 16
#endif

namespace peft::simd {
namespace {

constexpr int64_t kWidth = PEFT_VECTOR_BYTES / 4;
typedef float Vec __attribute__((vector_size(PEFT_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(PEFT_VECTOR_BYTES)));
typedef uint32_t Bits __attribute__((vector_size(PEFT_VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(PEFT_VECTOR_BYTES / 2)));

inline Vec splat(float value) { return Vec{} + value; }

inline Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof(v)); }

inline Vec load(const Bf16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return (Vec)(__builtin_convertvector(halves, Bits) << 16);
}

/// Nearest, ties to even, as torch rounds.
inline Halves to_halves(Vec v) {
  const Bits bits = (Bits)v;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits nan = (Bits)(v != v);
  return __builtin_convertvector((nan & 0x7fc0) | (~nan & rounded), Halves);
}

inline void store(Bf16* to, Vec v) {
  const Halves halves = to_halves(v);
  std::memcpy(to, &halves, sizeof(halves));
}

/// v rounded to the precision of T.
template <class T>
inline Vec rounded(Vec v);
template <>
inline Vec rounded<float>(Vec v) {
  return v;
}
template <>
inline Vec rounded<Bf16>(Vec v) {
  return (Vec)(__builtin_convertvector(to_halves(v), Bits) << 16);
}

/// The first n < kWidth elements, then zeros.
template <class T>
inline Vec load(const T* from, int64_t n) {
  T padded[kWidth] = {};
  std::memcpy(padded, from, static_cast<size_t>(n) * sizeof(T));
  return load(padded);
}

template <class T>
inline void store(T* to, Vec v, int64_t n) {
  T padded[kWidth];
  store(padded, v);
  std::memcpy(to, padded, static_cast<size_t>(n) * sizeof(T));
}

inline float sum(Vec v) {
  float total = 0;
  for (int64_t i = 0; i < kWidth; ++i) total += v[i];
  return total;
}

inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

inline float largest(Vec v) {
  float best = v[0];
  for (int64_t i = 1; i < kWidth; ++i) best = v[i] > best ? v[i] : best;
  return best;
}

/// e^x to about one unit in the last place; 0 below the least normal number, infinity from 88.4 on (2^127.5). Cody and
/// Waite's reduction, then Cephes' polynomial.
inline Vec exponential(Vec x) {
  const Vec low = splat(-87.3f), high = splat(89.0f);
  Vec y = x < low ? low : x;
  y = y > high ? high : y;
  const Vec magic = splat(12582912.0f);  // 1.5·2^23: adding it rounds to an integer
  const Vec shifted = y * 1.44269504088896341f + magic;
  const Vec integer = shifted - magic;
  const Vec r = (y - integer * 0.693359375f) - integer * -2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Ints power = ((Ints)shifted - 0x4b400000 + 127) << 23;
  const Vec value = p * (Vec)power;
  const Vec zero = {};
  return x < low ? zero : value;  // NaN compares false twice and passes through
}

/// Calls full(i) for each full vector of [0, n), then partial(i, count) for the remaining elements.
template <class Full, class Partial>
inline void in_vectors(int64_t n, Full full, Partial partial) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) full(i);
  if (i < n) partial(i, n - i);
}

}  // namespace
}  // namespace peft::simd
