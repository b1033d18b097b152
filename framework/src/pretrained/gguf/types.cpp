#include "pretrained/gguf/types.h"

#include <array>
#include <bit>
#include <cstring>

namespace peft {

static_assert(std::endian::native == std::endian::little, "the format is little-endian; values are used unconverted");

namespace {

constexpr std::array types = {
    GgufType{0, "F32", StoredType::f32, 1, 4},        GgufType{1, "F16", StoredType::f16, 1, 2},
    GgufType{30, "BF16", StoredType::bf16, 1, 2},     GgufType{2, "Q4_0", StoredType::q4_0, 32, 18},
    GgufType{3, "Q4_1", StoredType::q4_1, 32, 20},    GgufType{6, "Q5_0", StoredType::q5_0, 32, 22},
    GgufType{7, "Q5_1", StoredType::q5_1, 32, 24},    GgufType{8, "Q8_0", StoredType::q8_0, 32, 34},
    GgufType{12, "Q4_K", StoredType::q4_k, 256, 144}, GgufType{13, "Q5_K", StoredType::q5_k, 256, 176},
    GgufType{14, "Q6_K", StoredType::q6_k, 256, 210},
};

/// Names by ggml_type; "" for numbers that are no longer used.
constexpr std::array names = {
    "F32",   "F16",    "Q4_0",  "Q4_1", "",     "",        "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
    "IQ2_S", "IQ4_XS", "I8",    "I16",  "I32",  "I64",     "F64",    "IQ1_M",   "BF16",  "",       "",
    "",      "TQ1_0",  "TQ2_0", "",     "",     "",        "MXFP4",  "NVFP4",   "Q1_0",
};

// The product of a scale and a quantized value has at most 23 significant bits (11 of the fp16 scale, 6 or 7 of the
// group scale of a K-quant, 4 to 7 of the value), so it is exact in fp32. The result is therefore bit-identical whether
// or not the compiler contracts the product and the following sum into an FMA.

using Byte = const uint8_t*;

uint16_t load16(Byte bytes) { return static_cast<uint16_t>(bytes[0] | bytes[1] << 8); }

float half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, mantissa = bits & 0x3FF, exponent = bits >> 10 & 31;
  const float subnormal = static_cast<float>(static_cast<int32_t>(mantissa)) * 0x1p-24F;
  const uint32_t normal = (exponent + (exponent == 31 ? 224 : 112)) << 23 | mantissa << 13;
  return std::bit_cast<float>(sign | (exponent == 0 ? std::bit_cast<uint32_t>(subnormal) : normal));
}

float half_at(Byte bytes) { return half(load16(bytes)); }

void f16(Byte in, float* out) { *out = half_at(in); }
void bf16(Byte in, float* out) { *out = std::bit_cast<float>(static_cast<uint32_t>(load16(in)) << 16); }

void q4_0(Byte in, float* out) {
  const float d = half_at(in);
  const Byte q = in + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((q[i] >> 4) - 8);
  }
}

void q4_1(Byte in, float* out) {
  const float d = half_at(in), m = half_at(in + 2);
  const Byte q = in + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(q[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(q[i] >> 4) + m;
  }
}

/// The 32 values of a Q5_0 or Q5_1 block. Bit i of `high` is the fifth bit of value i.
void five_bits(Byte high, Byte low, int* out) {
  const uint32_t bits = load16(high) | static_cast<uint32_t>(load16(high + 2)) << 16;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<int>((low[i] & 15) | (bits >> i & 1) << 4);
    out[i + 16] = static_cast<int>((low[i] >> 4) | (bits >> (i + 16) & 1) << 4);
  }
}

void q5_0(Byte in, float* out) {
  const float d = half_at(in);
  int q[32];
  five_bits(in + 2, in + 6, q);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i] - 16);
}

void q5_1(Byte in, float* out) {
  const float d = half_at(in), m = half_at(in + 2);
  int q[32];
  five_bits(in + 4, in + 8, q);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}

void q8_0(Byte in, float* out) {
  const float d = half_at(in);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(in[i + 2]));
}

/// Scale and minimum of each of the 8 groups of a Q4_K or Q5_K block, stored as six bits each in 12 bytes.
struct GroupScales {
  explicit GroupScales(Byte in) {
    const float block_scale = half_at(in), block_minimum = half_at(in + 2);
    const Byte s = in + 4;
    for (int i = 0; i < 4; ++i) {
      scale[i] = block_scale * static_cast<float>(s[i] & 63);
      minimum[i] = block_minimum * static_cast<float>(s[i + 4] & 63);
      scale[i + 4] = block_scale * static_cast<float>((s[i + 8] & 15) | (s[i] >> 2 & 48));
      minimum[i + 4] = block_minimum * static_cast<float>(s[i + 8] >> 4 | (s[i + 4] >> 2 & 48));
    }
  }
  float scale[8], minimum[8];
};

void q4_k(Byte in, float* out) {
  const GroupScales groups(in);
  for (int g = 0; g < 8; ++g) {
    const Byte q = in + 16 + g / 2 * 32;
    const int shift = g % 2 * 4;
    const float d = groups.scale[g], m = groups.minimum[g];
    for (int i = 0; i < 32; ++i) out[g * 32 + i] = d * static_cast<float>(q[i] >> shift & 15) - m;
  }
}

void q5_k(Byte in, float* out) {
  const GroupScales groups(in);
  const Byte high = in + 16;
  for (int g = 0; g < 8; ++g) {
    const Byte q = in + 48 + g / 2 * 32;
    const int shift = g % 2 * 4;
    const float d = groups.scale[g], m = groups.minimum[g];
    for (int i = 0; i < 32; ++i)
      out[g * 32 + i] = d * static_cast<float>((q[i] >> shift & 15) | (high[i] >> g & 1) << 4) - m;
  }
}

void q6_k(Byte in, float* out) {
  const float block_scale = half_at(in + 208);
  for (int g = 0; g < 16; ++g) {  // groups of 16 values, each with a scale
    const int half_block = g / 8, quarter = g / 2 % 4, at = g % 2 * 16;
    const Byte low = in + half_block * 64 + quarter % 2 * 32 + at;
    const Byte high = in + 128 + half_block * 32 + at;
    const int low_shift = quarter / 2 * 4, high_shift = quarter * 2;
    const float d = block_scale * static_cast<float>(static_cast<int8_t>(in[192 + g]));
    for (int i = 0; i < 16; ++i)
      out[g * 16 + i] = d * static_cast<float>(((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
  }
}

template <void (*block)(Byte, float*)>
void each_block(const GgufType& type, const std::byte* blocks, int64_t count, float* out) {
  const auto* in = reinterpret_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < count; ++i) block(in + i * type.block_bytes, out + i * type.block_elements);
}

}  // namespace

const GgufType* find_gguf_type(uint32_t number) {
  for (const GgufType& type : types)
    if (type.number == number) return &type;
  return nullptr;
}

const GgufType& gguf_type(StoredType type) {
  for (const GgufType& known : types)
    if (known.type == type) return known;
  __builtin_unreachable();
}

const char* gguf_type_name(uint32_t number) {
  return number < names.size() && *names[number] != '\0' ? names[number] : "unknown";
}

uint64_t gguf_bytes(StoredType stored, const std::vector<int64_t>& shape) {
  const GgufType& type = gguf_type(stored);
  uint64_t elements = 1;
  for (const int64_t size : shape) elements *= static_cast<uint64_t>(size);
  return elements / type.block_elements * type.block_bytes;
}

void dequantize(StoredType stored, const std::byte* blocks, int64_t count, float* out) {
  const GgufType& type = gguf_type(stored);
  switch (stored) {
    case StoredType::f32:
      std::memcpy(out, blocks, static_cast<std::size_t>(count) * sizeof *out);
      return;
    case StoredType::f16:
      return each_block<f16>(type, blocks, count, out);
    case StoredType::bf16:
      return each_block<bf16>(type, blocks, count, out);
    case StoredType::q4_0:
      return each_block<q4_0>(type, blocks, count, out);
    case StoredType::q4_1:
      return each_block<q4_1>(type, blocks, count, out);
    case StoredType::q5_0:
      return each_block<q5_0>(type, blocks, count, out);
    case StoredType::q5_1:
      return each_block<q5_1>(type, blocks, count, out);
    case StoredType::q8_0:
      return each_block<q8_0>(type, blocks, count, out);
    case StoredType::q4_k:
      return each_block<q4_k>(type, blocks, count, out);
    case StoredType::q5_k:
      return each_block<q5_k>(type, blocks, count, out);
    case StoredType::q6_k:
      return each_block<q6_k>(type, blocks, count, out);
    default:
      __builtin_unreachable();
  }
}

}  // namespace peft
