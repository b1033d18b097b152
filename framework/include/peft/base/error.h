#pragma once

#include <stdexcept>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// Category of an error, by what the user has to fix. The value is peft-run's exit code.
enum class ErrorKind : int {
  config = 2,    ///< command line or TOML
  input = 3,     ///< model, tokenizer, data or adapter
  plugin = 4,    ///< a plugin that cannot be found, loaded or trusted
  resource = 5,  ///< memory or disk
  diverged = 6,  ///< loss or gradients that are not finite
};

/// Base of all errors that libpeft throws on purpose. `what()` is a complete message: where, what is wrong, what to do.
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

/// Text from a file in a form that is safe to print. Control characters (including bidirectional ones) and bytes that
/// are not UTF-8 are escaped as \xNN; text longer than `limit` bytes is truncated and ends with "…".
PEFT_API std::string printable(const std::string& text, std::size_t limit = 200);
/// A path in the same form, at most 4096 bytes long.
PEFT_API std::string printable_path(const std::string& path);

}  // namespace peft
