#pragma once

#include <stdexcept>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// What went wrong, as the user has to act on it; the value is peft-run's exit code.
enum class ErrorKind : int {
  config = 2,    ///< command line or TOML
  input = 3,     ///< model, tokenizer, data or adapter
  plugin = 4,    ///< a plugin that cannot be found, loaded or trusted
  resource = 5,  ///< memory or disk
  diverged = 6,  ///< loss or gradients that are not finite
};

/// Base of every error that peft throws on purpose. `what()` is complete: what, where, what would be right.
class PEFT_API Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message);
  ~Error() override;
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

class PEFT_API ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message);
  ~ConfigError() override;
};

class PEFT_API InputError : public Error {
 public:
  explicit InputError(const std::string& message);
  ~InputError() override;
};

class PEFT_API PluginError : public Error {
 public:
  explicit PluginError(const std::string& message);
  ~PluginError() override;
};

class PEFT_API ResourceError : public Error {
 public:
  explicit ResourceError(const std::string& message);
  ~ResourceError() override;
};

class PEFT_API DivergedError : public Error {
 public:
  explicit DivergedError(const std::string& message);
  ~DivergedError() override;
};

/// A name from a file, safe to print: controls (bidirectional ones too) and what is not UTF-8 escaped, cut to `limit`
/// bytes.
PEFT_API std::string printable(const std::string& text, std::size_t limit = 200);

}  // namespace peft
