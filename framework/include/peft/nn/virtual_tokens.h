#pragma once

#include "peft/nn/site.h"

namespace peft {

/// On an Embedding: virtual tokens before each example. They take the first positions and run through the model like
/// any token; hidden states and loss cover the example's own tokens only (Lester et al. 2021, arXiv 2104.08691).
class PEFT_API VirtualTokens : public AdapterModule {
 public:
  ~VirtualTokens() override;
  int64_t count() const;
  Tensor rows() const;  ///< [count, hidden]

 protected:
  virtual int64_t do_count() const = 0;
  virtual Tensor do_rows() const = 0;
};

/// [n, kv_heads, head_dim] each; keys as they are after RoPE.
struct KeysAndValues {
  Tensor keys, values;
};

/// On an Attention: keys and values that the tokens of every example attend to, in addition to those of their own
/// example.
class PEFT_API VirtualKeys : public AdapterModule {
 public:
  ~VirtualKeys() override;
  int64_t count() const;
  KeysAndValues keys_and_values() const;
  /// Undefined: the keys precede each example's own under the same softmax and take the first positions (Li & Liang
  /// 2021, arXiv 2101.00190). Else a number [1]: the keys have a softmax of their own, and its result times the gate
  /// goes through o_proj too and is added (Zhang et al. 2023, arXiv 2303.16199).
  Tensor gate() const;

 protected:
  virtual int64_t do_count() const = 0;
  virtual KeysAndValues do_keys_and_values() const = 0;
  virtual Tensor do_gate() const;  ///< default: undefined
};

}  // namespace peft
