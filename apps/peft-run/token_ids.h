#pragma once

#include "peft/data/dataset.h"
#include "peft/models/decoder.h"

/// Throws InputError, with `where`, for an id that the model has no row for: its tokenizer is not its own.
void require_rows(const std::vector<int64_t>& ids, const peft::Model& model, const std::string& where);
/// The same of each example, with file and line.
void require_rows(const peft::Dataset& data, const peft::Model& model);
