#include "peft/error.h"

#include <cstdio>

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

/// Length of the well-formed UTF-8 sequence at `i`, 0 if there is none.
std::size_t utf8_length(const std::string& text, std::size_t i) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char lead = byte(i);
  const std::size_t n = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
  if (n == 0 || i + n > text.size() || lead == 0xC0 || lead == 0xC1 || lead > 0xF4) return 0;
  for (std::size_t k = 1; k < n; ++k)
    if (byte(i + k) >> 6 != 2) return 0;
  if (lead == 0xC2 && byte(i + 1) < 0xA0) return 0;  // C1 controls drive terminals too
  return n;
}

}  // namespace

std::string printable(const std::string& text, std::size_t limit) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (out.size() >= limit) return out + "…";
    const auto c = static_cast<unsigned char>(text[i]);
    const std::size_t n = utf8_length(text, i);
    if (n == 0 || c < 0x20 || c == 0x7F) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", c);
      out += hex;
      ++i;
    } else {
      out.append(text, i, n);
      i += n;
    }
  }
  return out;
}

}  // namespace peft
