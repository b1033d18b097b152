#pragma once

#include <string>

#include "peft/export/merge.h"

/// Prints a line for all modules of the same name: how many weights the rounding left unchanged, and its relative
/// error. Warns where the error is large, naming the option that avoids it, `wider`.
void print_merge_report(const peft::MergeReport& report, const std::string& wider);

/// Prints a note for each adapter that does not record the base it was trained on.
void warn_unknown_bases(const peft::StringList& folders);
