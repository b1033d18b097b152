#pragma once

#include <cstdint>
#include <string>

namespace peft {

/// Number of heads whose rows llama.cpp permutes in the tensor of this Hugging Face name; 0: it stands as it is.
inline int64_t permuted_heads(const std::string& name, int64_t heads, int64_t key_value_heads) {
  if (name.find(".self_attn.q_proj.") != std::string::npos) return heads;
  if (name.find(".self_attn.k_proj.") != std::string::npos) return key_value_heads;
  return 0;
}

/// llama.cpp rotates neighbouring rows of a head, Hugging Face rows half a head apart: where row `row` of Hugging
/// Face's stands in a GGUF file. `head`: rows of a head.
inline int64_t unpermuted_row(int64_t row, int64_t head) {
  const int64_t first = row / head * head, at = row % head, half = head / 2;
  return first + (at < half ? 2 * at : 2 * (at - half) + 1);
}

}  // namespace peft
