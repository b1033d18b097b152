#pragma once

#include <string>

#include "peft/export/merge.h"

/// A line for all modules of one name: how many weights the rounding left as they were, and what it cost. Where it cost
/// too much, a warning that names the option that keeps more, `wider`.
void print_receipt(const peft::MergeReport& receipt, const std::string& wider);

/// A note for each adapter that does not say which base it was trained on.
void note_unknown_bases(const peft::StringList& folders);
