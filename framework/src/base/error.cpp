#include "peft/base/error.h"

#include <cstdio>

#include "base/utf8.h"

namespace peft {

Error::Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
Error::~Error() = default;

ConfigError::ConfigError(const std::string& message) : Error(ErrorKind::config, message) {}
ConfigError::~ConfigError() = default;

InputError::InputError(const std::string& message) : Error(ErrorKind::input, message) {}
InputError::~InputError() = default;

PluginError::PluginError(const std::string& message) : Error(ErrorKind::plugin, message) {}
PluginError::~PluginError() = default;

ResourceError::ResourceError(const std::string& message) : Error(ErrorKind::resource, message) {}
ResourceError::~ResourceError() = default;

DivergedError::DivergedError(const std::string& message) : Error(ErrorKind::diverged, message) {}
DivergedError::~DivergedError() = default;

namespace {

/// True for characters that control a terminal or the reading direction: C0, DEL, C1, line separators, bidirectional
/// controls.
bool is_control(const std::string& text, std::size_t i, std::size_t n) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(text[i + k]); };
  if (n == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
  if (n == 2) return byte(0) == 0xC2 && byte(1) < 0xA0;
  if (n != 3 || byte(0) != 0xE2) return false;
  return (byte(1) == 0x80 && ((byte(2) >= 0x8E && byte(2) <= 0x8F) || (byte(2) >= 0xA8 && byte(2) <= 0xAE))) ||
         (byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9);
}

}  // namespace

std::string printable(const std::string& text, std::size_t limit) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (out.size() >= limit) return out + "…";
    const std::size_t n = detail::utf8_length(text, i);
    if (n == 0 || is_control(text, i, n)) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(text[i]));
      out += hex;
      ++i;
    } else {
      out.append(text, i, n);
      i += n;
    }
  }
  return out;
}

std::string printable_path(const std::string& path) { return printable(path, 4096); }

}  // namespace peft
