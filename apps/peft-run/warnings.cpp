#include "warnings.h"

#include <iostream>

void print_warnings(const peft::StringList& lines) {
  for (const std::string& line : lines) std::cerr << "warning: " << line << "\n";
}
