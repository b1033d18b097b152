#pragma once

#include <memory>
#include <vector>

#include "arguments.h"
#include "peft/adapters/adapter.h"
#include "peft/adapters/hf_files.h"
#include "peft/files/pretrained_model.h"
#include "peft/models/causal_lm.h"
#include "peft/plugin/plugins.h"
#include "peft/pretrained/vocabulary_overlay.h"
#include "peft/text/text.h"
#include "peft/train/precision.h"

/// Loads a base with adapters.
class Inference {
 public:
  Inference(const AdapterArguments& from, const DeviceArguments& device, const peft::StringList& plugin_paths);
  /// With the tokens and the chat template that the adapters bring.
  const peft::TextPipeline& text() const { return text_; }
  peft::Precision& precision() { return *precision_; }
  peft::Plugins& plugins() { return plugins_; }

  struct AdaptedModel {
    std::shared_ptr<peft::CausalLm> model;
    std::vector<std::unique_ptr<peft::Adapter>> adapters;
  };
  /// A new copy of the base with some of the adapters, the outermost first. Prints the notes about them.
  AdaptedModel load(const peft::StringList& folders);

 private:
  peft::Plugins plugins_;
  std::unique_ptr<peft::Precision> precision_;
  torch::Device device_;
  std::shared_ptr<const peft::PretrainedModel> base_;
  peft::VocabularyOverlay overlay_;
  peft::TextPipeline text_;
  peft::LoadAdapterOptions how_;
};
