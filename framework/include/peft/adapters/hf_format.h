#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

class Adapter;
class Model;
class Site;

/// HF PEFT's key of a tensor of `site`: "base_model.model.<site path>.<name>".
PEFT_API std::string hf_key(const Site& site, const std::string& name);
PEFT_API std::string hf_key(const std::string& site_path, const std::string& name);

/// Converts one adapter to and from HF PEFT's `adapter_config.json` and `adapter_model.safetensors`
/// (Adapter::hf_format). All calls are made after attach.
class PEFT_API HfFormat {
 public:
  virtual ~HfFormat();
  /// `adapter_config.json`; the core adds base_model_name_or_path and task_type.
  nlohmann::ordered_json config(const Model& model) const;
  /// `adapter_model.safetensors`, key → tensor. Default: hf_key() of each of Adapter::trainable_parameters().
  StateDict to_hf(const Model& model) const;
  /// Completes a file with keys of to_hf() that the method can compute from the others. Default: adds nothing.
  StateDict add_derived_tensors(const Model& model, StateDict file) const;
  /// Loads a file that has to_hf()'s keys and shapes. Default: copies each tensor into to_hf()'s; a method whose
  /// to_hf() returns computed tensors overrides it. Throws InputError for invalid values.
  void from_hf(const Model& model, const StateDict& file) const;
  /// Tensors of the frozen base that HF PEFT saves with the adapter (an adapted embedding), key → the base's own
  /// tensor. A file may lack them, but must not hold other values. Default: embedding and head, if the vocabulary was
  /// resized.
  StateDict base_tensors(const Model& model) const;

 protected:
  /// `adapter`: the one that owns this format, usually `this`.
  explicit HfFormat(const Adapter* adapter) : adapter_(*adapter) {}
  virtual nlohmann::ordered_json do_config(const Model& model) const = 0;
  virtual StateDict do_to_hf(const Model& model) const;
  virtual StateDict do_add_derived_tensors(const Model& model, StateDict file) const;
  virtual void do_from_hf(const Model& model, const StateDict& file) const;
  virtual StateDict do_base_tensors(const Model& model) const;

 private:
  const Adapter& adapter_;
};

}  // namespace peft
