#include "pretrained/gguf/pre_tokenizer.h"

#include <array>

namespace peft::text {

using nlohmann::json;

namespace {

json split_by(const std::string& expression) {
  return {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
}

/// The pattern of Llama 3 and Qwen 2, which differ only in how they split digits.
json modern_split(const std::string& digits) {
  const json split = split_by("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" + digits +
                              "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
  return sequence("pretokenizers", json::array({split, byte_level(false)}));
}

const std::array<GgufPreTokenizer, 4>& known_pre_tokenizers() {
  static const std::array<GgufPreTokenizer, 4> known = {{
      {.name = "gpt-2", .normalizer = nullptr, .pre_tokenizer = byte_level(true)},
      {.name = "smollm",
       .normalizer = nullptr,
       .pre_tokenizer = sequence("pretokenizers",
                                 json::array({{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true)}))},
      {.name = "qwen2", .normalizer = {{"type", "NFC"}}, .pre_tokenizer = modern_split("\\p{N}")},
      {.name = "llama-bpe",
       .normalizer = nullptr,
       .pre_tokenizer = modern_split("\\p{N}{1,3}"),
       .ignore_merges = true,
       .adds_bos = true},
  }};
  return known;
}

/// Canonical form for comparison: without options that do not affect tokens, and with defaults that are often left out.
json canonical(json step) {
  if (!step.is_object()) return step;
  step.erase("trim_offsets");
  if (step.value("type", "") == "ByteLevel") step.emplace("use_regex", true);
  if (step.contains("pretokenizers") && step["pretokenizers"].is_array())
    for (json& inner : step["pretokenizers"]) inner = canonical(inner);
  return step;
}

}  // namespace

json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", use_regex}};
}

json sequence(const char* kind, json steps) { return {{"type", "Sequence"}, {kind, std::move(steps)}}; }

const GgufPreTokenizer* find_gguf_pre_tokenizer(const std::string& name) {
  const std::string known = name == "llama3" || name == "llama-v3" ? "llama-bpe" : name;
  for (const GgufPreTokenizer& pre : known_pre_tokenizers())
    if (pre.name == known) return &pre;
  return nullptr;
}

const GgufPreTokenizer* find_gguf_pre_tokenizer(const json& tokenizer) {
  const json pre_tokenizer = canonical(tokenizer.value("pre_tokenizer", json()));
  const json normalizer = tokenizer.value("normalizer", json());
  for (const GgufPreTokenizer& pre : known_pre_tokenizers())
    if (canonical(pre.pre_tokenizer) == pre_tokenizer && pre.normalizer == normalizer) return &pre;
  return nullptr;
}

}  // namespace peft::text
