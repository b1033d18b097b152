#pragma once
// What a fuzz program is made of: each *_fuzz.cpp defines the one `target`, driver.cpp runs it.

#include <stdexcept>
#include <string>

#include "random.h"

namespace peft::fuzz {

struct Target {
  const char* name;
  /// Stands in messages for the input: each refusal must hold it.
  const char* file;
  /// Reads the bytes as the program would. Returns where they are accepted; throws InputError or ConfigError where they
  /// are refused, Broken where what was accepted is not as promised. Whatever else happens is a finding, too.
  void (*run)(const std::string& bytes);
  /// An input near `bytes`, maybe with parts of `other`.
  std::string (*mutate)(const std::string& bytes, const std::string& other, Random& random);
};

extern const Target target;

/// An accepted input that breaks a promise.
struct Broken : std::logic_error {
  using std::logic_error::logic_error;
};
inline void promise(bool kept, const char* what) {
  if (!kept) throw Broken(what);
}

/// Makes every MappedFile::open() give these bytes, on the heap in a block of just their size: a read past the end is
/// then seen.
void set_file(const std::string& bytes);

}  // namespace peft::fuzz
