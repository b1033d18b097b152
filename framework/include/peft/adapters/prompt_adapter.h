#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <string>

#include "peft/adapters/adapter.h"
#include "peft/base/export.h"
#include "peft/nn/virtual_tokens.h"
#include "peft/options/options.h"

namespace peft {

/// HF PEFT's PromptLearningConfig: its names. All but the first are the model's own; another value is refused.
struct PromptOptions {
  int64_t num_virtual_tokens = 20;
  std::optional<int64_t> token_dim = {}, num_attention_heads = {}, num_layers = {}, num_transformer_submodules = {};
};
PEFT_API void read_prompt_options(Options& in, PromptOptions& options);

/// What makes virtual tokens: [n, width], here the rows of an embedding themselves. One that makes them of something
/// narrower overrides encode() and reparameterized().
class PEFT_API PromptEncoder : public torch::nn::Module {
 public:
  /// `embedding` [n, …] is registered as "embedding.weight".
  explicit PromptEncoder(const Tensor& embedding);
  ~PromptEncoder() override;
  /// Columns [first, first + count) of what it makes: [n, count].
  Tensor output(int64_t first, int64_t count) const;
  virtual bool reparameterized() const { return false; }
  /// From now on it makes `output` [n, width], whatever it holds: PEFT saves no more of it.
  void fix(const Tensor& output) { fixed_ = output; }
  bool fixed() const { return fixed_.defined(); }
  const Tensor& embedding() const { return embedding_; }

 protected:
  virtual Tensor encode(int64_t first, int64_t count) const;

 private:
  Tensor embedding_, fixed_;
};

/// A method whose file is one tensor, `prompt_embeddings`: what its encoder makes. Prompts stand in front of the
/// embedded tokens; a method of another place overrides place_encoder.
class PEFT_API PromptAdapter : public Adapter {
 public:
  ~PromptAdapter() override;
  void attach(Model& model, torch::Dtype dtype) final;
  bool is_identity_at_init() const override { return false; }
  /// Throws ConfigError where a file held only what the encoder made.
  std::vector<ParamGroup> groups(const Model& model) const final;
  nlohmann::ordered_json hf_config(const Model& model) const final;
  StateDict to_hf(const Model& model) const final;
  /// PEFT wraps no model here, and its keys say so.
  StateDict base_tensors_saved_by_hf(const Model& model) const final;
  /// The encoder, where it is more than what PEFT saves.
  StateDict encoder_state_dict(const Model& model) const final;
  void on_weights_loaded(bool whole) final;

 protected:
  PromptAdapter(std::string peft_type, PromptOptions options);
  /// Widths as PEFT counts them for the method.
  struct Shape {
    int64_t token_dim, num_attention_heads;
    int64_t width;  ///< of a row of the saved tensor
  };
  virtual Shape shape(const Model& model) const;
  virtual std::shared_ptr<PromptEncoder> make_encoder(const Model& model, const at::TensorOptions& tensor_options) = 0;
  virtual void place_encoder(Model& model, const std::shared_ptr<PromptEncoder>& encoder);
  /// Adds the config's fields that are the method's own.
  virtual void write_config(const Model& model, nlohmann::ordered_json& config) const = 0;
  const PromptOptions& prompt() const { return options_; }
  const std::string& name() const { return name_; }

 private:
  std::string peft_type_, name_;
  PromptOptions options_;
  std::shared_ptr<PromptEncoder> encoder_;
  Tensor made_;  // [n, width]: what to_hf holds of a reparameterized encoder
};

}  // namespace peft
