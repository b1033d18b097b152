// Promises that a template which is wrong, raises, or would never end gives an InputError and nothing worse: templates
// come from checkpoints of strangers. That real templates render as in Python is compared in tests/parity.
#include "peft/text/chat_template.h"

#include <thread>

#include "peft/error.h"
#include "support/test.h"

namespace {

const std::vector<peft::Message> hello = {{"user", "hello"}};

std::string render(const std::string& source) {
  return peft::ChatTemplate::parse(source, "<s>", "</s>")->render(hello, true);
}

std::string error_of(const std::string& source) {
  try {
    render(source);
  } catch (const peft::InputError& error) {
    return error.what();
  }
  return "no error";
}

std::string repeat(const std::string& text, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("a template sees messages, special tokens and add_generation_prompt") {
  CHECK(render("{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }}{% endfor %}{{ eos_token }}"
               "{% if add_generation_prompt %}!{% endif %}") == "<s>user:hello</s>!");
  CHECK(render("{% macro f(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}{{ f(3, 4) }}") == "1234");
  CHECK(render("{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}") ==
        "3");
}

TEST_CASE("errors say where and what") {
  CHECK(error_of("a\n{{ raise_exception('roles must alternate') }}") ==
        "chat template: line 2, column 19: roles must alternate");
  CHECK_THAT(error_of("{% for x in %}"), Catch::StartsWith("chat template: "));
  CHECK_THAT(error_of("{% if x %}"), Catch::StartsWith("chat template: "));
  CHECK_THAT(error_of("{{ x | no_such_filter }}"), Catch::Contains("no_such_filter"));
  CHECK_THAT(error_of("\xff"), Catch::Contains("not UTF-8"));
}

TEST_CASE("a template that goes on for ever or grows without end is stopped") {
  CHECK_THAT(error_of("{% for i in range(1000000000000) %}{% endfor %}"), Catch::Contains("range() goes beyond"));
  CHECK_THAT(error_of("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"),
             Catch::Contains("more than 200000 steps"));
  CHECK_THAT(error_of("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"), Catch::Contains("nested deeper than 50"));
  CHECK_THAT(
      error_of("{% set n = namespace(x='abcdefgh') %}{% for i in range(64) %}{% set n.x = n.x ~ n.x %}{% endfor %}"),
      Catch::Contains("a value grows beyond 16 MiB"));
  CHECK_THAT(error_of("{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('abcdefgh') }}"),
             Catch::Contains("a value grows beyond 16 MiB"));
}

TEST_CASE("a template that nests too deeply is refused, and what is allowed fits the stack") {
  CHECK_THAT(error_of("{{ " + repeat("(", 100000) + "1" + repeat(")", 100000) + " }}"),
             Catch::Contains("nested deeper"));
  CHECK_THAT(error_of(repeat("{% if true %}", 10000) + repeat("{% endif %}", 10000)), Catch::Contains("nested deeper"));
  CHECK_THAT(error_of("{% if 0 %}" + repeat("{% elif 0 %}", 10000) + "{% endif %}"), Catch::Contains("nested deeper"));
  CHECK_THAT(error_of("{{ " + repeat("not ", 100000) + "1 }}"), Catch::Contains("a tag of more than 1000 words"));
  CHECK(render("{{ " + repeat("(", 100) + "1" + repeat(")", 100) + " }}") == "1");
  CHECK(render(repeat("{% if true %}", 100) + "1" + repeat("{% endif %}", 100)) == "1");
  CHECK(render("{{ 7 if " + repeat("not ", 900) + "1 }}") == "7");
  CHECK(render("{{ " + repeat("1 if 0 else ", 240) + "7 }}") == "7");
}

TEST_CASE("threads may share a template") {
  const auto shared = peft::ChatTemplate::parse("{% for m in messages %}{{ m.content }}{% endfor %}", "", "");
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (auto& text : texts)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) text += shared->render(hello, false);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(texts == std::vector<std::string>(4, repeat("hello", 200)));
}
