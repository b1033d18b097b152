// Checks that an accepted config.json describes a valid model: consistent sizes and finite factors.
#include <cmath>
#include <nlohmann/json.hpp>

#include "json_tree.h"
#include "peft/architecture/config.h"
#include "peft/files/json.h"
#include "target.h"

namespace peft::fuzz {

namespace {

void check_rope(const RopeConfig& rope) {
  for (const double number : {rope.theta, rope.factor, rope.low_freq_factor, rope.high_freq_factor, rope.beta_fast,
                              rope.beta_slow, rope.attention_factor.value_or(1), rope.mscale.value_or(1)})
    expect(std::isfinite(number), "a factor that is not finite");
  expect(rope.theta > 1 && rope.factor > 0 && rope.low_freq_factor > 0, "a factor that is not positive");
  const bool scaled = rope.type == "llama3" || rope.type == "yarn";
  expect(!scaled || rope.original_max_position_embeddings > 0, "no positions");
  expect(rope.type != "llama3" || rope.high_freq_factor > rope.low_freq_factor, "no band between the frequencies");
}

void run(const std::string& bytes) {
  const DecoderConfig c = decoder_config(parse_json(bytes, "INPUT"), "INPUT");
  for (const int64_t size : {c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers,
                             c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.max_position_embeddings})
    expect(size > 0 && size < int64_t{1} << 31, "a size out of range");
  expect(c.head_dim % 2 == 0, "an odd head");
  expect(c.num_attention_heads % c.num_key_value_heads == 0, "heads that do not share keys evenly");
  expect(std::isfinite(c.rms_norm_eps) && c.rms_norm_eps > 0, "no epsilon");
  check_rope(c.rope);
}

}  // namespace

const Target target = {"config", "INPUT", run, mutate_json};

}  // namespace peft::fuzz
