#include "pretrained/gguf/reader.h"

#include "text/unicode.h"

namespace peft {

const std::byte* GgufReader::take(uint64_t size, const std::string& what) {
  if (size > remaining())
    fail("truncated or corrupt: " + what + " at byte " + std::to_string(position_) + " needs " + std::to_string(size) +
         " bytes, but only " + std::to_string(remaining()) + " follow");
  const std::byte* data = bytes_.data() + position_;
  position_ += static_cast<std::size_t>(size);
  return data;
}

std::string GgufReader::text(const std::string& what) {
  const auto size = number<uint64_t>(what);
  const std::byte* data = take(size, what);
  std::string text(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
  if (text::find_bad_utf8(text) != std::string::npos) fail(what + " is not UTF-8: '" + printable(text) + "'");
  return text;
}

}  // namespace peft
