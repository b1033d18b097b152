#pragma once

#include "peft/base/export.h"
#include "peft/nn/site.h"

namespace peft {

/// On an Embedding: virtual tokens in front of each example. They take the first positions and run through the whole
/// model; what comes out of it, and the loss, are of the example's own tokens alone (Lester et al. 2021, arXiv
/// 2104.08691).
class PEFT_API VirtualTokens : public AdapterLayer {
 public:
  ~VirtualTokens() override;
  /// next(x): the model asks for rows().
  Tensor forward(const Tensor& x, const Next& next) final;
  virtual int64_t count() const = 0;
  virtual Tensor rows() const = 0;  ///< [count, hidden]
};

/// [n, kv_heads, head_dim] each; keys as they are after RoPE.
struct KeysAndValues {
  Tensor keys, values;
};

/// On an attention: keys and values that all tokens of all examples see besides those of their own example.
class PEFT_API VirtualKeys : public AdapterLayer {
 public:
  ~VirtualKeys() override;
  /// next(x): the attention asks for the keys and values.
  Tensor forward(const Tensor& x, const Next& next) final;
  virtual int64_t count() const = 0;
  virtual KeysAndValues keys_and_values() const = 0;
  /// Undefined: they stand in front of each example's own keys and values, under the same softmax, and take the first
  /// positions (Li & Liang 2021, arXiv 2101.00190). Else, a number [1]: they are attended to by themselves, and the
  /// result times the gate goes through o_proj too and is added (Zhang et al. 2023, arXiv 2303.16199).
  virtual Tensor gate() const;
};

}  // namespace peft
