#pragma once

#include <memory>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"
#include "peft/options/options.h"
#include "peft/pretrained/vocabulary_overlay.h"

namespace peft {

/// What the tokenizers saved in adapter folders add to the base's: tokens after its own, another chat template, other
/// BOS and EOS tokens. Throws InputError if two folders disagree.
PEFT_API VocabularyOverlay adapter_tokenizer_changes(const PretrainedModel& base, const StringList& folders);
/// The base with these changes, and with embedding and head of the size that the adapters were saved with; rows beyond
/// the base's own have the saved values. Throws InputError if two folders disagree.
PEFT_API std::shared_ptr<const PretrainedModel> base_with_vocabulary(std::shared_ptr<const PretrainedModel> base,
                                                                     VocabularyOverlay changes,
                                                                     const StringList& folders);

}  // namespace peft
