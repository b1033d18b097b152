// Shows that a name from a file, printed by printable(), cannot control a terminal: the output is UTF-8 without control
// characters, and the original bytes can be recognized in it.
#include "peft/base/error.h"

#include "support/test.h"

using peft::printable;

TEST_CASE("readable text is unchanged") {
  for (const char* text :
       {"", "model.layers.0", "naïve", "模型", "\xF0\x9F\x98\x80", "\xC2\xA0", "\xE2\x80\xA6", "\xEF\xBF\xBD"})
    CHECK(printable(text) == text);
}

TEST_CASE("control characters of terminals, lines and reading direction are escaped") {
  CHECK(printable("a\x1b[31mb\r\n\x7f") == "a\\x1b[31mb\\x0d\\x0a\\x7f");
  CHECK(printable(std::string("\0", 1)) == "\\x00");
  CHECK(printable("\xC2\x9B") == "\\xc2\\x9b");           // C1: CSI
  CHECK(printable("\xE2\x80\xA8") == "\\xe2\\x80\\xa8");  // line separator
  CHECK(printable("\xE2\x80\xAE") == "\\xe2\\x80\\xae");  // right to left
  CHECK(printable("\xE2\x81\xA6") == "\\xe2\\x81\\xa6");  // isolate
}

TEST_CASE("bytes that are not UTF-8 are escaped, including overlong encodings") {
  CHECK(printable("\xff") == "\\xff");
  CHECK(printable("\xC0\x9B") == "\\xc0\\x9b");
  CHECK(printable("\xE0\x80\x9B") == "\\xe0\\x80\\x9b");           // ESC in three bytes
  CHECK(printable("\xF0\x80\x80\x9B") == "\\xf0\\x80\\x80\\x9b");  // and in four
  CHECK(printable("\xED\xA0\x80") == "\\xed\\xa0\\x80");           // half a surrogate pair
  CHECK(printable("\xF4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // beyond Unicode
  CHECK(printable("\xE4\xBD") == "\\xe4\\xbd");                    // truncated
}

TEST_CASE("a long name is truncated") {
  CHECK(printable(std::string(300, 'a')) == std::string(200, 'a') + "…");
  CHECK(printable("abc", 2) == "ab…");
  CHECK(peft::printable_path(std::string(5000, 'a')) == std::string(4096, 'a') + "…");
}
