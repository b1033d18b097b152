#pragma once

#include <string>

#include "peft/export/merge.h"

/// Prints a line for all modules of the same name: how many weights the rounding left unchanged, and its relative
/// error. Warns once if the error is large anywhere, naming the option that avoids it, `wider`.
void print_merge_report(const peft::MergeReport& report, const std::string& wider);

/// Prints warnings about the model's files and notes about the adapters'.
void print_notes(const peft::ReadingNotes& notes);
