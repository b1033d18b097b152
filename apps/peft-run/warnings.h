#pragma once

#include "peft/options/options.h"

/// Prints each line to stderr after "warning: ".
void print_warnings(const peft::StringList& lines);
