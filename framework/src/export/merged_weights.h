#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "peft/export/merge.h"
#include "peft/files/pretrained_model.h"
#include "peft/files/safetensors.h"
#include "peft/models/causal_lm.h"

namespace peft {

/// The tensors of a model with merged adapters, computed one at a time.
class MergedWeights {
 public:
  /// The type in which a tensor of the pretrained model is written.
  using TypeOf = std::function<StoredType(const StoredTensor&)>;
  MergedWeights(const PretrainedModel& checkpoint, const CausalLm& model, TypeOf type_of);
  /// Names, types and shapes, in model order.
  const std::vector<TensorInfo>& tensors() const { return forms_; }
  /// True if the merged lm_head no longer shares the embedding's weight.
  bool unties() const { return unties_; }
  /// The bytes of a tensor, valid until the next call.
  const void* data(const TensorInfo& form);
  const std::vector<MergedModule>& modules() const { return modules_; }
  /// The number of tensors of each dtype, by its name in config.json or in GGUF.
  std::map<std::string, int64_t> dtypes() const;

 private:
  struct Source {
    const Site* site;
    bool bias;
    const StoredTensor* stored;
  };
  void add(const Site& site);
  WeightAndBias base_of(const Site& site) const;
  const WeightAndBias& merged(const Site& site);
  void record(const Site& site, const Tensor& stored, StoredType type);
  const PretrainedModel& checkpoint_;
  const CausalLm& model_;
  TypeOf type_of_;
  bool unties_ = false;
  std::vector<TensorInfo> forms_;
  std::map<std::string, Source> sources_;
  const Site* current_ = nullptr;  ///< the site of `weights_`
  WeightAndBias weights_;          ///< merged
  Tensor base_;                    ///< the weight before merging
  Tensor out_;
  std::vector<MergedModule> modules_;
};

}  // namespace peft
