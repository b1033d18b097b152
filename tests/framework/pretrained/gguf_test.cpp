// Shows that a GGUF file is read as a Hugging Face folder, and that any file, also a truncated, forged or mutated one,
// is either opened or refused with an InputError that names the file and the reason. tests/parity/test_gguf.py compares
// the values of all types and of a real model with the Python package gguf.
#include "pretrained/gguf/gguf_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "framework/pretrained/small_gguf.h"
#include "peft/architecture/config.h"
#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "peft/text/text.h"
#include "support/test.h"

namespace {

using nlohmann::json;

std::vector<float> read(const peft::PretrainedModel& model, const peft::StoredTensor& tensor) {
  std::size_t elements = 1;
  for (const int64_t size : tensor.shape) elements *= static_cast<std::size_t>(size);
  std::vector<float> values(elements);
  model.read(tensor, values.data());
  return values;
}

/// The error message for these bytes; "" if the file is opened.
std::string refusal(const std::string& bytes) {
  const TemporaryFile file;
  try {
    peft::open_gguf(file.write(bytes));
    return "";
  } catch (const peft::InputError& error) {
    const std::string message = error.what();
    REQUIRE(message.find(file.path()) != std::string::npos);
    return message;
  }
}

void check_refused(const std::string& bytes, const std::string& why) {
  const std::string message = refusal(bytes);
  INFO("message: '" << message << "', expected: '" << why << "'");
  CHECK(message.find(why) != std::string::npos);
}

/// small_llama() with some of its bytes replaced.
std::string replaced(const std::string& from, const std::string& to) {
  std::string bytes = small_llama().bytes;
  const std::size_t at = bytes.find(from);
  REQUIRE(at != std::string::npos);
  return bytes.replace(at, from.size(), to);
}

/// The metadata of small_llama() with additional pairs, and no tensors.
std::string with_pairs(uint64_t count, const GgufBytes& pairs) {
  GgufBytes out;
  out.header(0, llama_pairs + count);
  add_llama_metadata(out);
  return out.bytes + pairs.bytes;
}

/// The metadata of small_llama() with these tensors and `data` bytes of tensor data.
std::string with_tensors(uint64_t count, const GgufBytes& tensors, std::size_t data) {
  GgufBytes out;
  out.header(count, llama_pairs);
  add_llama_metadata(out);
  out.bytes += tensors.bytes;
  out.align();
  return out.bytes + std::string(data, '\0');
}

}  // namespace

TEST_CASE("a GGUF file is presented as a Hugging Face folder") {
  const TemporaryFile file;
  const auto model = peft::open_gguf(file.write(small_llama().bytes));
  CHECK(model->path() == file.path());
  const json& config = model->config();
  CHECK(config.at("model_type") == "llama");
  CHECK(config.at("head_dim") == 4);
  CHECK(config.at("vocab_size") == 4);
  CHECK(config.at("rope_theta") == 10000.0);
  CHECK(config.at("tie_word_embeddings") == true);
  CHECK(config.at("torch_dtype") == "float32");
  CHECK(peft::decoder_config(config, file.path()).head_dim == 4);
  CHECK(model->generation_config() == json{{"eos_token_id", {3}}});
  CHECK(model->tokenizer_config().at("eos_token") == "<e>");

  const auto* embedding = model->find("model.embed_tokens.weight");
  REQUIRE(embedding != nullptr);
  CHECK(embedding->shape == std::vector<int64_t>{4, 8});
  CHECK(model->is_direct(*embedding));
  CHECK(read(*model, *embedding)[31] == 31);

  const auto* down = model->find("model.layers.0.mlp.down_proj.weight");
  REQUIRE(down != nullptr);
  CHECK(down->shape == std::vector<int64_t>{8, 32});
  CHECK_FALSE(model->is_direct(*down));
  const std::vector<float> values = read(*model, *down);
  CHECK(values[0] == -8);
  CHECK(values[7 * 32 + 31] == 11);
  CHECK(model->find("rope_freqs.weight") == nullptr);
}

TEST_CASE("a tensor with many blocks is read correctly by several threads") {
  constexpr int rows = 1 << 16;
  GgufBytes out;
  out.header(1, llama_pairs);
  add_llama_metadata(out);
  out.tensor("blk.0.ffn_down.weight", {32, rows}, 8, 0).align();
  for (int row = 0; row < rows; ++row) {
    out.number<uint16_t>(0x3800);  // 0.5
    for (int i = 0; i < 32; ++i) out.number(static_cast<int8_t>(i - 16 + row % 100));
  }
  const TemporaryFile file;
  const auto model = peft::open_gguf(file.write(out.bytes));
  const std::vector<float> values = read(*model, *model->find("model.layers.0.mlp.down_proj.weight"));
  int wrong = 0;
  for (int row = 0; row < rows; ++row)
    for (int i = 0; i < 32; ++i)
      wrong += values[static_cast<std::size_t>(row) * 32 + static_cast<std::size_t>(i)] !=
               0.5F * static_cast<float>(i - 16 + row % 100);
  CHECK(wrong == 0);
}

TEST_CASE("the permutation of the query rows is undone") {
  const TemporaryFile file;
  const auto model = peft::open_gguf(file.write(small_llama().bytes));
  const auto* query = model->find("model.layers.0.self_attn.q_proj.weight");
  REQUIRE(query != nullptr);
  CHECK_FALSE(model->is_direct(*query));
  const std::vector<float> values = read(*model, *query);
  std::vector<int> stored_rows;
  for (std::size_t row = 0; row < 8; ++row) stored_rows.push_back(static_cast<int>(values[row * 8]) / 8);
  CHECK(stored_rows == std::vector<int>{0, 2, 1, 3, 4, 6, 5, 7});
}

TEST_CASE("a GGUF file gives a text pipeline") {
  const TemporaryFile file;
  const peft::TextPipeline text = peft::load_text(*peft::open_gguf(file.write(small_llama().bytes)));
  CHECK(text.eos_ids == std::vector<int64_t>{3});
  CHECK(text.tokenizer->encode("ab", false) == std::vector<int64_t>{2});
  REQUIRE(text.chat_template != nullptr);
  CHECK(text.chat_template->render({{"user", "ab"}}, true) == "ab<e>");
}

TEST_CASE("a GGUF file truncated at any byte is refused") {
  const std::string bytes = small_llama().bytes;
  const TemporaryFile file;
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    INFO("truncated to " << size << " of " << bytes.size() << " bytes");
    CHECK_THROWS_AS(peft::open_gguf(file.write(bytes.substr(0, size))), peft::InputError);
  }
  CHECK(refusal(bytes).empty());
}

TEST_CASE("other formats, versions and byte orders are refused") {
  std::string bytes = small_llama().bytes;
  check_refused("GGML" + bytes.substr(4), "not a GGUF file");
  check_refused("FUGG" + bytes.substr(4), "big-endian");
  check_refused(std::string("GGUF\0\0\0\3", 8) + bytes.substr(8), "big-endian");
  check_refused(std::string("GGUF\1\0\0\0", 8) + bytes.substr(8), "GGUF version 1 is not implemented");
  check_refused(std::string("GGUF\4\0\0\0", 8) + bytes.substr(8), "GGUF version 4 is not implemented");
  CHECK(refusal(std::string("GGUF\2\0\0\0", 8) + bytes.substr(8)).empty());
  CHECK_THROWS_AS(peft::open_gguf("/nowhere/model.gguf"), peft::InputError);
  CHECK_THROWS_AS(peft::open_gguf("/"), peft::InputError);
  CHECK_THROWS_AS(peft::open_gguf("/dev/zero"), peft::InputError);
}

TEST_CASE("counts and lengths that exceed the file are refused") {
  const uint64_t huge = uint64_t{1} << 60;
  check_refused(GgufBytes().header(huge, 0).bytes, "the header declares 1152921504606846976 tensors");
  check_refused(GgufBytes().header(0, huge).bytes, "the header declares 1152921504606846976 key/value pairs");
  check_refused(GgufBytes().header(0, 1).number(huge).bytes, "needs 1152921504606846976 bytes");
  check_refused(GgufBytes().header(0, 1).number(UINT64_MAX).bytes, "needs 18446744073709551615 bytes");
  check_refused(GgufBytes().header(0, 1).text("k").number(8U).number(huge).bytes, "the value of 'k'");
  for (const uint64_t length : {huge, UINT64_MAX})
    check_refused(GgufBytes().header(0, 1).text("k").number(9U).number(0U).number(length).bytes,
                  "elements; the limit for all arrays");
  check_refused(GgufBytes().header(0, 1).text("k").number(9U).number(0U).number(uint64_t{1000}).bytes, "truncated");
  GgufBytes twice;  // two arrays, each of which is within the limit, but not both together
  twice.header(0, 2).text("a").number(9U).number(0U).number(uint64_t{1} << 24);
  twice.bytes += std::string(1 << 24, 'x');
  twice.text("b").number(9U).number(0U).number(uint64_t{1}).number(uint8_t{0});
  check_refused(twice.bytes, "the value of 'b' has 1 elements; the limit for all arrays together is 16777216");
}

TEST_CASE("malformed metadata is refused") {
  GgufBytes nested;
  nested.text("k").number(9U);
  for (int depth = 0; depth < 1000; ++depth) nested.number(9U).number(uint64_t{1});
  check_refused(with_pairs(1, nested), "an array of arrays");
  check_refused(with_pairs(1, GgufBytes().pair("llama.block_count", 1U)), "'llama.block_count' appears twice");
  check_refused(with_pairs(1, GgufBytes().text("k").number(13U).number(0U)), "unknown type 13");
  check_refused(with_pairs(1, GgufBytes().text("k").number(7U).number(uint8_t{2})), "must be 0 (false) or 1 (true)");
  check_refused(with_pairs(1, GgufBytes().pair("k", std::string("\xff"))), "the value of 'k' is not UTF-8");
  check_refused(with_pairs(2, GgufBytes().pair("\x1b", 1U).pair("\x1b", 1U)), "the key '\\x1b' appears twice");
  check_refused(with_pairs(1, GgufBytes().pair("", 1U)), "a key of 0 bytes");
  for (const uint32_t alignment : {0U, 3U, 48U, 1U << 21})
    check_refused(with_pairs(1, GgufBytes().pair("general.alignment", alignment)), "must be a power of two");
  check_refused(with_pairs(1, GgufBytes().pair("general.alignment", 8.0F)), "must be a power of two");
  CHECK(refusal(with_pairs(1, GgufBytes().pair("general.alignment", 64U))).empty());
}

TEST_CASE("unknown keys can be ignored, and are noted") {
  const TemporaryFile file;
  const std::string bytes = with_pairs(2, GgufBytes().pair("llama.odd", 4U).pair("llama.strange", 1U));
  check_refused(bytes, "unknown keys 'llama.odd', 'llama.strange'");
  const auto model = peft::open_gguf(file.write(bytes), {.ignore_unknown = true});
  CHECK(model->notes().size() == 2);
  CHECK(model->notes().at(0).find("ignored unknown key 'llama.odd'") != std::string::npos);
}

TEST_CASE("the name for an adapter's base is the repository of these weights") {
  const TemporaryFile file;
  const auto base_name = [&](uint64_t count, const GgufBytes& pairs) {
    return peft::open_gguf(file.write(with_pairs(count, pairs)))->base_name();
  };
  const auto text = [](const char* value) { return std::string(value); };
  const std::string repo_url = "general.base_model.0.repo_url", url = "https://huggingface.co/org/Some-1B-Chat";
  CHECK(base_name(0, {}) == file.path());
  CHECK(base_name(1, GgufBytes().pair("general.source.huggingface.repository", text("org/some"))) == "org/some");
  CHECK(base_name(1, GgufBytes().pair("general.source.url", text("https://huggingface.co/org/some/"))) == "org/some");
  CHECK(base_name(1, GgufBytes().pair("general.source.url", text("https://example.org/a"))) == file.path());
  CHECK(base_name(2, GgufBytes().pair("general.name", text("Some 1B Chat")).pair(repo_url, url)) == "org/Some-1B-Chat");
  CHECK(base_name(3, GgufBytes()
                         .pair("general.name", text("Some 1B"))
                         .pair("general.base_model.0.organization", text("org"))
                         .pair("general.base_model.0.name", text("Some 1B"))) == "org/Some-1B");
  // The model that this one was fine-tuned from.
  CHECK(base_name(2, GgufBytes().pair("general.name", text("My Model")).pair(repo_url, url)) == file.path());
  CHECK(peft::open_gguf(file.path(), {.base_name = "given/name"})->base_name() == "given/name");
}

TEST_CASE("metadata that changes the computation in ways that are not implemented is refused") {
  check_refused(with_pairs(1, GgufBytes().pair("llama.attention.sliding_window", 4U)),
                "unknown keys 'llama.attention.sliding_window', which could change the computation");
  check_refused(with_pairs(1, GgufBytes().pair("llama.expert_count", 8U)), "mixtures of experts");
  check_refused(with_pairs(1, GgufBytes().pair("llama.rope.dimension_count", 2U).pair("x", 1U)), "");
  check_refused(
      with_pairs(2, GgufBytes().pair("llama.rope.dimension_count", 2U).pair("llama.attention.key_length", 4U)),
      "partial rotation");
  check_refused(with_pairs(1, GgufBytes().pair("llama.attention.value_length", 8U)), "value_length");
  check_refused(with_pairs(1, GgufBytes().pair("split.count", 2U)), "one of 2 parts");
  check_refused(with_pairs(1, GgufBytes().pair("general.type", std::string("adapter"))), "adapter, not model");
  check_refused(
      with_pairs(
          2,
          GgufBytes().pair("llama.rope.scaling.type", std::string("longrope")).pair("llama.rope.scaling.factor", 2.0F)),
      "longrope is not implemented");
  check_refused(replaced("llama.block_count", "llama.block_couNT"), "unknown keys 'llama.block_couNT'");
  check_refused(replaced("general.architecture", "general.archiTECTURE"), "'general.architecture' is missing");
  check_refused(with_pairs(1, GgufBytes().pair("llama.rope.freq_base", -1.0F)), "must be positive");
  check_refused(with_pairs(1, GgufBytes().pair("llama.rope.freq_base", INFINITY)), "must be a finite number");
  check_refused(with_pairs(1, GgufBytes().pair("llama.vocab_size", 0U)), "must be an integer from 1");
  check_refused(with_pairs(1, GgufBytes().pair("llama.vocab_size", 1U << 31)), "must be an integer from 1");
  check_refused(with_pairs(1, GgufBytes().pair("tokenizer.ggml.bos_token_id", 4U)),
                "'tokenizer.ggml.bos_token_id' is 4, but there are 4 tokens");
}

TEST_CASE("malformed tensors are refused") {
  const auto single = [](const std::string& name, const std::vector<uint64_t>& sizes, uint32_t type,
                         uint64_t offset = 0) {
    std::size_t data = 4;  // the size in F32, if it is small
    for (const uint64_t size : sizes) data *= std::min<uint64_t>(size, 64);
    return with_tensors(1, GgufBytes().tensor(name, sizes, type, offset), std::min<std::size_t>(data, 4096));
  };
  const std::string embedding = "token_embd.weight";
  CHECK(refusal(single(embedding, {8, 4}, 0)).empty());
  CHECK(refusal(with_tensors(1, GgufBytes().tensor(embedding, {9, 1}, 0, 0), 36)).empty());
  CHECK(refusal(with_tensors(1, GgufBytes().tensor(embedding, {9, 1}, 0, 0), 64)).empty());
  check_refused(with_tensors(1, GgufBytes().tensor(embedding, {9, 1}, 0, 0), 65), "1 bytes after the last tensor");
  check_refused(with_tensors(1, GgufBytes().tensor(embedding, {8, 4}, 0, 32), 160), "there is a gap before it");
  check_refused(single(embedding, {8, 4}, 10), "has the type Q2_K (10), which is not implemented");
  check_refused(single(embedding, {8, 4}, 28), "has the type F64 (28)");
  check_refused(single(embedding, {8, 4}, 99), "has the type unknown (99)");
  check_refused(single(embedding, {8, 4}, 8), "not a multiple of the block size of Q8_0");
  check_refused(single(embedding, {}, 0), "has 0 dimensions");
  check_refused(single(embedding, {1, 1, 1, 1, 1}, 0), "has 5 dimensions");
  check_refused(single(embedding, {8, 0}, 0), "of size 0");
  check_refused(single(embedding, {1ULL << 32, 1ULL << 32}, 0), "larger than the file");
  check_refused(single(embedding, {UINT64_MAX, 2}, 0), "larger than the file");
  check_refused(single(embedding, {8, 129}, 0), "does not fit in the file");
  check_refused(single(embedding, {8, 4}, 0, 4096), "does not fit in the file");
  check_refused(single(embedding, {8, 4}, 0, UINT64_MAX - 31), "does not fit in the file");
  check_refused(single(embedding, {8, 4}, 0, 8), "not a multiple of the alignment 32");
  check_refused(single(std::string(65, 'a'), {8, 4}, 0), "has 65 bytes");
  check_refused(single("blk.1.attn_q.weight", {8, 8}, 0), "is not a tensor of a llama model with 1 layers");
  for (const char* name : {"blk.00.attn_q.weight", "blk..attn_q.weight", "blk.-1.attn_q.weight", "blk.0", "blk.", "",
                           "blk.4294967296.attn_q.weight", "blk.0.attn_q.weight.weight", "blk.0.attn_norm.bias",
                           "blk.0.attn_sinks.weight", "output.bias", "blk.0.ffn_gate_exps.weight"}) {
    INFO(name);
    CHECK_FALSE(refusal(single(name, {8, 8}, 0)).empty());
  }
  check_refused(single("blk.0.attn_q.weight", {8, 6}, 0), "not a multiple of 4, twice the number of heads");
  check_refused(with_tensors(1, GgufBytes().tensor("blk.0.attn_q.bias", {32}, 8, 0), 34), "a quantized bias");
  check_refused(single("rope_freqs.weight", {3}, 0), "one element for each of the 2 frequencies");
  check_refused(single("rope_freqs.weight", {2}, 0), "is not Llama 3's scaling");
  const auto two = [](uint64_t offset, const std::string& name) {
    GgufBytes tensors;
    tensors.tensor("token_embd.weight", {8, 4}, 0, 0).tensor(name, {8}, 0, offset);
    return with_tensors(2, tensors, 160);
  };
  CHECK(refusal(two(128, "output_norm.weight")).empty());
  check_refused(two(96, "output_norm.weight"), "overlap");
  check_refused(two(0, "output_norm.weight"), "overlap");
  check_refused(two(128, "token_embd.weight"), "appears twice");
}

TEST_CASE("each of 20,000 mutations of a GGUF file is opened or refused with an InputError") {
  const std::string original = small_llama().bytes;
  std::mt19937 random(20240607);
  const auto below = [&](std::size_t limit) { return random() % limit; };
  const std::size_t interesting = original.size() - small_data_size;  // every value of the data is valid
  const TemporaryFile file;
  int opened = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = original;
    for (std::size_t change = 0; change <= below(3); ++change) {
      const std::size_t at = below(interesting);
      switch (below(5)) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ 1 << below(8));
          break;
        case 2:
          bytes.replace(at, 8, std::string(8, below(2) == 0 ? '\xff' : '\0'));
          break;
        case 3:
          bytes.erase(at, 1 + below(16));
          break;
        default:
          bytes.insert(at, bytes.substr(below(interesting), 1 + below(16)));
      }
    }
    INFO("round " << round);
    try {
      const auto model = peft::open_gguf(file.write(bytes));
      ++opened;
      for (const peft::StoredTensor& tensor : model->tensors())
        REQUIRE(read(*model, tensor).size() <= 2 * bytes.size());
      peft::load_text(*model);
    } catch (const peft::InputError&) {
    }
  }
  CHECK(opened > 500);  // the mutations are small enough to reach more than the first check
  CHECK(opened < 15000);
}
