#include "pretrained/gguf/names.h"

#include <algorithm>
#include <string_view>

#include "peft/base/error.h"

namespace peft {

namespace {

struct Name {
  std::string_view gguf, hf;
  bool may_have_bias = false;
};

constexpr Name kModelNames[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};

constexpr Name kLayerNames[] = {
    {"attn_norm", "input_layernorm"},          {"attn_q", "self_attn.q_proj", true},
    {"attn_k", "self_attn.k_proj", true},      {"attn_v", "self_attn.v_proj", true},
    {"attn_output", "self_attn.o_proj", true}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj", true},       {"ffn_up", "mlp.up_proj", true},
    {"ffn_down", "mlp.down_proj", true},
};

using Spelling = std::string_view Name::*;

/// Translates `name`, one of `names` with the suffix .weight or .bias, from one convention to the other; "" if it is
/// not one of them.
template <std::size_t count>
std::string translate(const Name (&names)[count], std::string_view name, Spelling from, Spelling to) {
  for (const Name& known : names) {
    if (!name.starts_with(known.*from)) continue;
    const std::string_view suffix = name.substr((known.*from).size());
    if (suffix == ".weight" || (suffix == ".bias" && known.may_have_bias)) return std::string(known.*to).append(suffix);
  }
  return "";
}

}  // namespace

std::string hf_name_of_gguf(const std::string& name, int64_t layers) {
  const std::string_view view = name;
  if (view.substr(0, 4) != "blk.") return translate(kModelNames, view, &Name::gguf, &Name::hf);
  const std::string_view number = view.substr(4, view.find('.', 4) - 4);
  const bool digits = std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
  // Leading zeros are rejected, so that no two tensors get the same name.
  if (!digits || number.empty() || number.size() > 9 || (number.size() > 1 && number[0] == '0')) return "";
  if (4 + number.size() >= view.size() || std::stoll(std::string(number)) >= layers) return "";
  const std::string rest = translate(kLayerNames, view.substr(5 + number.size()), &Name::gguf, &Name::hf);
  return rest.empty() ? "" : "model.layers." + std::string(number) + "." + rest;
}

std::string gguf_name_of_hf(const std::string& name) {
  constexpr std::string_view layers = "model.layers.";
  const std::string_view view = name;
  std::string out;
  if (!view.starts_with(layers)) {
    out = translate(kModelNames, view, &Name::hf, &Name::gguf);
  } else if (const std::size_t dot = view.find('.', layers.size()); dot != view.npos) {
    out = translate(kLayerNames, view.substr(dot + 1), &Name::hf, &Name::gguf);
    if (!out.empty()) out = "blk." + std::string(view.substr(layers.size(), dot - layers.size())) + "." + out;
  }
  if (out.empty()) throw InputError("'" + printable(name) + "' has no GGUF name");
  return out;
}

}  // namespace peft
