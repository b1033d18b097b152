#pragma once
// The interface of a fuzz program: each *_fuzz.cpp defines `target`, which driver.cpp runs.

#include <stdexcept>
#include <string>

#include "random.h"

namespace peft::fuzz {

struct Target {
  const char* name;
  /// The input's file name, which each error message must contain.
  const char* file;
  /// Reads the bytes as the program does. Returns if they are accepted; throws InputError or ConfigError if they are
  /// refused, and FailedCheck if they are accepted but a check fails. Everything else is a finding, too.
  void (*run)(const std::string& bytes);
  /// A mutation of `bytes`, which can include parts of `other`.
  std::string (*mutate)(const std::string& bytes, const std::string& other, Random& random);
};

extern const Target target;

/// An input was accepted although a check fails.
struct FailedCheck : std::logic_error {
  using std::logic_error::logic_error;
};
/// `finding` describes what is wrong if not `ok`.
inline void expect(bool ok, const char* finding) {
  if (!ok) throw FailedCheck(finding);
}

/// Makes MappedFile::open() return these bytes in a heap block of exactly their size, so that AddressSanitizer detects
/// reads past the end.
void set_file(const std::string& bytes);

}  // namespace peft::fuzz
