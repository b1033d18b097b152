// Shows that text accepted as JSON is JSON to every other reader, too, with the same meaning: what nlohmann's parser
// accepts beyond that is refused.
#include "base/strict_json.h"

#include "peft/base/error.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;

namespace {

bool is_json(const std::string& text, std::size_t depth = 10) {
  try {
    read_strict_json(text, "f", depth);
    return true;
  } catch (const JsonSyntaxError&) {
    return false;
  }
}

std::string refusal(const std::string& text, std::size_t depth = 10) {
  return test::message_of<InputError>([&] { read_strict_json(text, "f", depth); });
}

}  // namespace

TEST_CASE("JSON is read") {
  CHECK(read_strict_json(R"({"a": [1, -2.5, "x", null, true], "b": {}})", "f", 10).dump() ==
        R"({"a":[1,-2.5,"x",null,true],"b":{}})");
  CHECK(read_strict_json(" 18446744073709551615 ", "f", 10) == 18446744073709551615u);
}

TEST_CASE("text after the end is refused, also after a NUL byte") {
  CHECK_FALSE(is_json("{} x"));
  CHECK_FALSE(is_json(std::string("{}\0", 3)));
  CHECK_FALSE(is_json(std::string("{\"a\": 1}\0{\"a\": 2}", 17)));
  CHECK_FALSE(is_json(std::string("\0", 1)));
  CHECK_FALSE(is_json(""));
}

TEST_CASE("text that readers interpret differently is refused") {
  CHECK(refusal("\xEF\xBB\xBF{}") == "f: starts with a byte order mark, which is not allowed in JSON");
  CHECK(refusal(R"({"a": 1, "b": {"a": 2, "\u0061": 3}})") == "f: the key 'a' appears twice in one object");
  CHECK(refusal("{\"\\u001b\": 1, \"\\u001b\": 1}") == "f: the key '\\x1b' appears twice in one object");
  for (const char* text : {"NaN", "[Infinity]", "{'a': 1}", "[1,]", "{\"a\": 1,}", "01", "+1", "1.", "\"\t\"",
                           "// x\n1", "\"\xff\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\\ud800\"", "1e999"})
    CHECK_FALSE(is_json(text));
}

TEST_CASE("nesting depth and number of values are limited") {
  CHECK(refusal("[[[1]]]", 3).empty());
  CHECK(refusal("[[[[1]]]]", 3) == "f: JSON nested deeper than 3 levels");
  CHECK(refusal(std::string(1'000'000, '['), 100) == "f: JSON nested deeper than 100 levels");
  std::string many = "[0";
  for (int i = 0; i < (1 << 23); ++i) many += ",0";
  CHECK(refusal(many + "]") == "f: JSON with more than 8388608 values");
}

TEST_CASE("keys keep the order of the text, and a duplicate among many is found") {
  CHECK(read_ordered_json(R"({"b": {"z": 1, "a": [2]}, "a": null})", "f", 10).dump() ==
        R"({"b":{"z":1,"a":[2]},"a":null})");
  std::string many = "{";
  for (int i = 0; i < 200'000; ++i) many += "\"k" + std::to_string(i) + "\":[0],";
  CHECK(read_ordered_json(many + "\"last\":0}", "f", 10).size() == 200'001);
  for (const char* key : {"k0", "k20", "k199999"})
    CHECK(test::message_of<InputError>([&] { read_ordered_json(many + "\"" + key + "\":0}", "f", 10); }) ==
          std::string("f: the key '") + key + "' appears twice in one object");
}
