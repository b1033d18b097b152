#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <string>

#include "peft/adapters/adapter.h"
#include "peft/adapters/encoder_state.h"
#include "peft/adapters/hf_format.h"
#include "peft/base/export.h"
#include "peft/nn/virtual_tokens.h"
#include "peft/options/options.h"

namespace peft {

/// The options of HF PEFT's PromptLearningConfig. All but the first must equal the model's own values or be absent.
struct PromptOptions {
  int64_t num_virtual_tokens = 20;
  std::optional<int64_t> token_dim = {}, num_attention_heads = {}, num_layers = {}, num_transformer_submodules = {};
};
PEFT_API void read_prompt_options(Options& in, PromptOptions& options);

/// Makes the virtual tokens [n, width]; here they are the rows of an embedding. A subclass that computes them with a
/// network overrides encode() and is_reparameterized().
class PEFT_API PromptEncoder : public torch::nn::Module {
 public:
  /// `embedding` [n, …] is registered as "embedding.weight".
  explicit PromptEncoder(const Tensor& embedding);
  ~PromptEncoder() override;
  /// Columns [first, first + count) of the output: [n, count].
  Tensor output(int64_t first, int64_t count) const;
  virtual bool is_reparameterized() const { return false; }
  /// Replaces the output by the constant `output` [n, width], which is all that HF PEFT saves of an encoder.
  void fix(const Tensor& output) { fixed_ = output; }
  bool is_fixed() const { return fixed_.defined(); }
  const Tensor& embedding() const { return embedding_; }

 protected:
  virtual Tensor encode(int64_t first, int64_t count) const;

 private:
  Tensor embedding_, fixed_;
};

/// A method whose file is one tensor, `prompt_embeddings`: the output of its encoder. The virtual tokens precede the
/// embedded ones; a method that adds a prefix elsewhere overrides attach_encoder().
class PEFT_API PromptAdapter : public Adapter, public HfFormat, public EncoderState {
 public:
  ~PromptAdapter() override;
  const HfFormat& hf_format() const noexcept final { return *this; }
  const EncoderState* encoder_state() const noexcept final { return this; }

 protected:
  PromptAdapter(std::string peft_type, PromptOptions options);
  void do_attach(Model& model, torch::Dtype dtype) final;
  /// Throws ConfigError if the loaded file held only the encoder's output.
  std::vector<ParamGroup> do_groups(const Model& model) const final;
  nlohmann::ordered_json do_config(const Model& model) const final;
  StateDict do_to_hf(const Model& model) const final;
  StateDict do_base_tensors(const Model& model) const final;
  StateDict do_encoder_state_dict(const Model& model) const final;
  void do_on_weights_loaded(bool complete) const final;

  /// Sizes as HF PEFT counts them for the method.
  struct Shape {
    int64_t token_dim, num_attention_heads;
    int64_t width;  ///< of a row of the saved tensor
  };
  virtual Shape shape(const Model& model) const;
  virtual std::shared_ptr<PromptEncoder> make_encoder(const Model& model, const at::TensorOptions& tensor_options) = 0;
  virtual void attach_encoder(Model& model, const std::shared_ptr<PromptEncoder>& encoder);
  /// Adds the method's own fields to the config.
  virtual void write_config(const Model& model, nlohmann::ordered_json& config) const = 0;
  const PromptOptions& prompt() const { return options_; }
  const std::string& name() const { return name_; }

 private:
  std::string peft_type_, name_;
  PromptOptions options_;
  std::shared_ptr<PromptEncoder> encoder_;
  Tensor output_;  // [n, width]: the tensor that to_hf() returns for a reparameterized encoder
};

}  // namespace peft
