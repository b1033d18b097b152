#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/adapters/adapter.h"
#include "peft/files/pretrained_model.h"
#include "peft/models/decoder.h"
#include "peft/plugin/plugins.h"
#include "peft/pretrained/vocabulary_overlay.h"
#include "peft/text/text.h"

/// A base and what it takes to run it with adapters.
class Inference {
 public:
  /// `adapters`: all folders that load() will be asked for.
  Inference(const std::string& model, const peft::StringList& adapters, const std::string& precision,
            const std::string& device, const peft::StringList& plugin_paths);
  /// With the tokens and the chat template that the adapters bring.
  const peft::TextPipeline& text() const { return text_; }
  peft::Precision& precision() { return *precision_; }

  struct Adapted {
    std::shared_ptr<peft::Model> model;
    std::vector<std::unique_ptr<peft::Adapter>> adapters;
  };
  /// A base of its own with the folders' adapters, one over the other; says where one does not tell its base.
  Adapted load(const peft::StringList& folders, bool any_base);

 private:
  peft::Plugins plugins_;
  std::unique_ptr<peft::Precision> precision_;
  torch::Device device_;
  std::shared_ptr<const peft::PretrainedModel> checkpoint_;
  peft::VocabularyOverlay change_;
  peft::TextPipeline text_;
};
