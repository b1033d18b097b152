#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/models/model.h"

namespace peft {

/// Throws InputError, beginning with `where`, for a token id without an embedding row: the tokenizer does not belong to
/// the model.
PEFT_API void check_token_ids(const std::vector<int64_t>& ids, const Model& model, const std::string& where);
/// The same of each example; `where` is its file and line.
PEFT_API void check_token_ids(const Dataset& data, const Model& model);

}  // namespace peft
