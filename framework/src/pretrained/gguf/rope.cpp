#include "pretrained/gguf/rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "peft/base/error.h"

namespace peft {

namespace {

using nlohmann::json;

/// Values of all published Llama 3 models.
constexpr double kLowFreqFactor = 1, kHighFreqFactor = 4;
constexpr int64_t kLlama3Context = 8192;

std::vector<float> read_divisors(const GgufTensor& tensor, const GgufMetadata& metadata, int64_t head_dim) {
  if (tensor.type != StoredType::f32 || tensor.shape != std::vector<int64_t>{head_dim / 2})
    metadata.fail("the tensor " + std::string(gguf_rope_tensor) + " must be F32 with one element for each of the " +
                  std::to_string(head_dim / 2) + " frequencies");
  std::vector<float> values(static_cast<std::size_t>(head_dim / 2));
  std::memcpy(values.data(), tensor.data, tensor.size);
  return values;
}

json scaling_of_tensor(const GgufTensor& tensor, const GgufMetadata& metadata, double theta, int64_t head_dim) {
  const std::vector<float> stored = read_divisors(tensor, metadata, head_dim);
  const double factor = stored.empty() ? 1 : stored.back();
  const int64_t context = metadata.integer("llama.rope.scaling.original_context_length", 1, kLlama3Context);
  RopeConfig rope;
  rope.theta = theta;
  rope.factor = factor;
  rope.low_freq_factor = kLowFreqFactor;
  rope.high_freq_factor = kHighFreqFactor;
  rope.original_max_position_embeddings = context;
  const std::vector<double> expected = llama3_divisors(rope, head_dim);
  // 1e-4, because the file's divisors were computed in fp32.
  const bool equal = std::equal(stored.begin(), stored.end(), expected.begin(), expected.end(),
                                [](float a, double b) { return std::abs(a - b) <= 1e-4 * b; });
  if (!equal || factor < 1)
    metadata.fail("the tensor " + std::string(gguf_rope_tensor) +
                  " is not Llama 3's scaling (low_freq_factor 1, high_freq_factor 4, original context " +
                  std::to_string(context) + "); other scalings are not implemented");
  if (factor == 1) return nullptr;
  return {{"rope_type", "llama3"},
          {"factor", factor},
          {"low_freq_factor", kLowFreqFactor},
          {"high_freq_factor", kHighFreqFactor},
          {"original_max_position_embeddings", context}};
}

/// Reads `llama.rope.scaling.*` as llama.cpp does: the default type is linear; without a factor there is no scaling.
json scaling_of_metadata(const GgufMetadata& metadata) {
  const std::string prefix = "llama.rope.scaling.";
  const std::string type = metadata.text(prefix + "type", "linear");
  const double factor = metadata.number(prefix + "factor", 0);
  if (factor < 0) metadata.fail("'" + prefix + "factor' must not be negative");
  if (type != "none" && type != "linear" && type != "yarn")
    metadata.fail("'" + prefix + "type' " + printable(type) + " is not implemented; supported: none, linear, yarn");
  if (type == "none" || factor == 0 || (type == "linear" && factor == 1)) return nullptr;
  if (type == "linear") return {{"rope_type", "linear"}, {"factor", factor}};
  json scaling = {{"rope_type", "yarn"}, {"factor", factor}};
  const int64_t context = metadata.integer("llama.context_length", 1);
  scaling["original_max_position_embeddings"] = metadata.integer(prefix + "original_context_length", 1, context);
  for (const char* beta : {"beta_fast", "beta_slow"})
    if (metadata.has(prefix + "yarn_" + beta)) scaling[beta] = metadata.number(prefix + "yarn_" + beta);
  if (metadata.number(prefix + "attn_factor", 1) != 1)
    metadata.fail("'" + prefix + "attn_factor' other than 1 is not implemented");
  return scaling;
}

}  // namespace

std::vector<double> llama3_divisors(const RopeConfig& rope, int64_t head_dim) {
  std::vector<double> divisors;
  const double context = static_cast<double>(rope.original_max_position_embeddings);
  for (int64_t i = 0; i < head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(head_dim);
    const double turns = context / (2 * std::numbers::pi * std::pow(rope.theta, exponent));
    const double smooth =
        std::clamp((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    divisors.push_back(1 / ((1 - smooth) / rope.factor + smooth));
  }
  return divisors;
}

json rope_scaling_of_gguf(const GgufFile& gguf, const GgufMetadata& metadata, double theta, int64_t head_dim) {
  const json scaling = scaling_of_metadata(metadata);
  const GgufTensor* tensor = gguf.find(gguf_rope_tensor);
  if (tensor == nullptr) return scaling;
  if (!scaling.is_null())
    metadata.fail("'llama.rope.scaling.factor' together with the tensor " + std::string(gguf_rope_tensor) +
                  " is not implemented");
  return scaling_of_tensor(*tensor, metadata, theta, head_dim);
}

}  // namespace peft
