#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

/// Writes the bytes of a GGUF file value by value, so that each value can be invalid.
struct GgufBytes {
  template <typename T>
  GgufBytes& number(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufBytes& text(const std::string& value) {
    number<uint64_t>(value.size());
    bytes += value;
    return *this;
  }
  GgufBytes& header(uint64_t tensors, uint64_t pairs, uint32_t version = 3) {
    bytes += "GGUF";
    return number(version).number(tensors).number(pairs);
  }
  GgufBytes& pair(const std::string& key, uint32_t value) { return text(key).number<uint32_t>(4).number(value); }
  GgufBytes& pair(const std::string& key, float value) { return text(key).number<uint32_t>(6).number(value); }
  GgufBytes& pair(const std::string& key, const std::string& value) {
    return text(key).number<uint32_t>(8).text(value);
  }
  GgufBytes& pair(const std::string& key, const std::vector<std::string>& values) {
    text(key).number<uint32_t>(9).number<uint32_t>(8).number<uint64_t>(values.size());
    for (const std::string& value : values) text(value);
    return *this;
  }
  /// Sizes in GGUF's order: the row length first.
  GgufBytes& tensor(const std::string& name, const std::vector<uint64_t>& sizes, uint32_t type, uint64_t offset) {
    text(name).number(static_cast<uint32_t>(sizes.size()));
    for (const uint64_t size : sizes) number(size);
    return number(type).number(offset);
  }
  GgufBytes& align(std::size_t alignment = 32) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return *this;
  }

  std::string bytes;
};

/// A file that the destructor deletes.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& suffix = ".gguf")
      : path_(
            (std::filesystem::temp_directory_path() / ("peft_test_" + std::to_string(::getpid()) + suffix)).string()) {}
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  const std::string& write(const std::string& bytes) const {
    std::filesystem::remove(path_);  // some file systems sync a file that is truncated and rewritten, which is slow
    std::ofstream(path_, std::ios::binary) << bytes;
    return path_;
  }

 private:
  std::string path_;
};

/// The metadata of small_llama(), `llama_pairs` pairs.
inline void add_llama_metadata(GgufBytes& out) {
  out.pair("general.architecture", std::string("llama"));
  out.pair("llama.block_count", 1U).pair("llama.context_length", 64U).pair("llama.embedding_length", 8U);
  out.pair("llama.feed_forward_length", 32U).pair("llama.attention.head_count", 2U);
  out.pair("llama.attention.head_count_kv", 1U).pair("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  out.pair("tokenizer.ggml.model", std::string("gpt2")).pair("tokenizer.ggml.pre", std::string("gpt-2"));
  out.pair("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "ab", "<e>"});
  out.pair("tokenizer.ggml.merges", std::vector<std::string>{"a b"}).pair("tokenizer.ggml.eos_token_id", 3U);
  out.pair("tokenizer.chat_template", std::string("{{ messages[0].content }}<e>"));
}
constexpr uint64_t llama_pairs = 14;
/// Offsets of the embedding, the down projection and the query projection in the data, and the size of the data.
constexpr uint64_t embedding_at = 0, down_at = 128, query_at = 416, small_data_size = 672;

/// A llama with head dimension 4, an F32 embedding (4, 8), a Q8_0 down projection (8, 32) and an F32 query projection
/// (8, 8).
inline GgufBytes small_llama() {
  GgufBytes out;
  out.header(3, llama_pairs);
  add_llama_metadata(out);
  out.tensor("token_embd.weight", {8, 4}, 0, embedding_at);
  out.tensor("blk.0.ffn_down.weight", {32, 8}, 8, down_at);
  out.tensor("blk.0.attn_q.weight", {8, 8}, 0, query_at);
  out.align();
  for (int i = 0; i < 32; ++i) out.number(static_cast<float>(i));
  for (int row = 0; row < 8; ++row) {
    out.number<uint16_t>(0x3800);  // 0.5
    for (int i = 0; i < 32; ++i) out.number(static_cast<int8_t>(i - 16 + row));
  }
  out.bytes.resize(out.bytes.size() + query_at - down_at - 8 * 34);
  for (int i = 0; i < 64; ++i) out.number(static_cast<float>(i));
  return out;
}
