#pragma once

#include <memory>

#include "peft/architecture/config.h"
#include "peft/nn/block.h"
#include "peft/nn/norm.h"

namespace peft {

/// The modules that a model family brings to the decoder.
struct ModelFamily {
  std::shared_ptr<Block> (*make_block)(const DecoderConfig& config, const LayerPosition& position);
  std::shared_ptr<Norm> (*make_final_norm)(const DecoderConfig& config, SiteInfo info);
};

/// The family of a config that decoder_config() accepts.
const ModelFamily& model_family(const DecoderConfig& config);

}  // namespace peft
