// Promises that a name out of a file, shown by printable(), cannot drive a terminal: what is printed is UTF-8 without a
// control character, and what was there can still be told.
#include "peft/base/error.h"

#include "support/test.h"

using peft::printable;

TEST_CASE("what can be read stays") {
  for (const char* text :
       {"", "model.layers.0", "naïve", "模型", "\xF0\x9F\x98\x80", "\xC2\xA0", "\xE2\x80\xA6", "\xEF\xBF\xBD"})
    CHECK(printable(text) == text);
}

TEST_CASE("controls are escaped, those of a terminal, of lines and of the reading direction") {
  CHECK(printable("a\x1b[31mb\r\n\x7f") == "a\\x1b[31mb\\x0d\\x0a\\x7f");
  CHECK(printable(std::string("\0", 1)) == "\\x00");
  CHECK(printable("\xC2\x9B") == "\\xc2\\x9b");           // C1: CSI
  CHECK(printable("\xE2\x80\xA8") == "\\xe2\\x80\\xa8");  // line separator
  CHECK(printable("\xE2\x80\xAE") == "\\xe2\\x80\\xae");  // right to left
  CHECK(printable("\xE2\x81\xA6") == "\\xe2\\x81\\xa6");  // isolate
}

TEST_CASE("what is not UTF-8 is escaped, other spellings of a character too") {
  CHECK(printable("\xff") == "\\xff");
  CHECK(printable("\xC0\x9B") == "\\xc0\\x9b");
  CHECK(printable("\xE0\x80\x9B") == "\\xe0\\x80\\x9b");           // ESC in three bytes
  CHECK(printable("\xF0\x80\x80\x9B") == "\\xf0\\x80\\x80\\x9b");  // and in four
  CHECK(printable("\xED\xA0\x80") == "\\xed\\xa0\\x80");           // half a surrogate pair
  CHECK(printable("\xF4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // beyond Unicode
  CHECK(printable("\xE4\xBD") == "\\xe4\\xbd");                    // cut off
}

TEST_CASE("a long name is cut") {
  CHECK(printable(std::string(300, 'a')) == std::string(200, 'a') + "…");
  CHECK(printable("abc", 2) == "ab…");
}
