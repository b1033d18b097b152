#pragma once

#include <cstdint>
#include <string>

namespace peft {

/// Number of heads in a tensor whose rows llama.cpp permutes, by its Hugging Face name; 0 if it does not permute them.
inline int64_t permuted_heads(const std::string& name, int64_t heads, int64_t key_value_heads) {
  if (name.find(".self_attn.q_proj.") != std::string::npos) return heads;
  if (name.find(".self_attn.k_proj.") != std::string::npos) return key_value_heads;
  return 0;
}

/// Row in a GGUF file that is row `row` in Hugging Face's order, for heads of `head_dim` rows. llama.cpp's RoPE rotates
/// adjacent rows of a head, Hugging Face's rotates rows half a head apart.
inline int64_t unpermuted_row(int64_t row, int64_t head_dim) {
  const int64_t first = row / head_dim * head_dim, offset = row % head_dim, half = head_dim / 2;
  return first + (offset < half ? 2 * offset : 2 * (offset - half) + 1);
}

}  // namespace peft
