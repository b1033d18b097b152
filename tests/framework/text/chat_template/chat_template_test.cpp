// Promises that a template which is invalid, raises or never terminates causes an InputError and nothing worse:
// templates come with checkpoints, so they are untrusted. tests/parity compares how real templates render with Python.
#include "peft/text/chat_template/chat_template.h"

#include <thread>

#include "peft/base/error.h"
#include "support/test.h"

namespace {

const std::vector<peft::Message> hello = {{"user", "hello"}};

std::string render(const std::string& source) {
  return peft::ChatTemplate::parse(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}})->render(hello, true);
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

TEST_CASE("errors have a location and a message") {
  CHECK(error_of("a\n{{ raise_exception('roles must alternate') }}") ==
        "chat template: line 2, column 19: roles must alternate");
  CHECK_THAT(error_of("{% for x in %}"), Catch::StartsWith("chat template: "));
  CHECK_THAT(error_of("{% if x %}"), Catch::StartsWith("chat template: "));
  CHECK_THAT(error_of("{{ x | no_such_filter }}"), Catch::Contains("no_such_filter"));
  CHECK_THAT(error_of("\xff"), Catch::Contains("not UTF-8"));
}

TEST_CASE("a template that does not terminate or grows without limit is stopped") {
  CHECK_THAT(error_of("{% for i in range(1000000000000) %}{% endfor %}"),
             Catch::Contains("range() takes integers from -1000000 to 1000000"));
  CHECK_THAT(error_of("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"),
             Catch::Contains("more than 200000 steps"));
  CHECK_THAT(error_of("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"), Catch::Contains("nested deeper than 50"));
  CHECK_THAT(
      error_of("{% set n = namespace(x='abcdefgh') %}{% for i in range(64) %}{% set n.x = n.x ~ n.x %}{% endfor %}"),
      Catch::Contains("a value is larger than 16 MiB"));
  CHECK_THAT(error_of("{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('abcdefgh') }}"),
             Catch::Contains("a value is larger than 16 MiB"));
}

TEST_CASE("a template that nests too deeply is rejected, and the deepest allowed one fits the stack") {
  CHECK_THAT(error_of("{{ " + repeat("(", 100000) + "1" + repeat(")", 100000) + " }}"),
             Catch::Contains("nested deeper"));
  CHECK_THAT(error_of(repeat("{% if true %}", 10000) + repeat("{% endif %}", 10000)), Catch::Contains("nested deeper"));
  CHECK_THAT(error_of("{% if 0 %}" + repeat("{% elif 0 %}", 10000) + "{% endif %}"), Catch::Contains("nested deeper"));
  CHECK_THAT(error_of("{{ " + repeat("not ", 100000) + "1 }}"), Catch::Contains("a tag with more than 1000 tokens"));
  CHECK(render("{{ " + repeat("(", 100) + "1" + repeat(")", 100) + " }}") == "1");
  CHECK(render(repeat("{% if true %}", 100) + "1" + repeat("{% endif %}", 100)) == "1");
  CHECK(render("{{ 7 if " + repeat("not ", 900) + "1 }}") == "7");
  CHECK(render("{{ " + repeat("1 if 0 else ", 240) + "7 }}") == "7");
}

TEST_CASE("every kind of block counts as nesting, an assignment does not") {
  CHECK_THAT(error_of(repeat("{%set a%}", 50000) + repeat("{%endset%}", 50000)), Catch::Contains("nested deeper"));
  CHECK_THAT(error_of(repeat("{% set a(b=1) %}", 50000)), Catch::Contains("nested deeper"));
  CHECK_THAT(error_of(repeat("{% call f() %}", 50000)), Catch::Contains("nested deeper"));
  CHECK(render(repeat("{% set a = f(b=1) if 0 else 1 %}", 500) + repeat("{% set a %}2{% endset %}", 500) + "{{ a }}") ==
        "2");
  CHECK(render(repeat("{% generation %}", 500) + "1" + repeat("{% endgeneration %}", 500)) == "1");
  CHECK_THAT(error_of("{{ " + repeat("a", 201) + " }}"), Catch::Contains("a name longer than 200 bytes"));
}

TEST_CASE("values that contain themselves are reported, or released without a leak") {
  const std::string space = "{% set n = namespace() %}{% set n.me = n %}{% set n.list = [n] %}";
  for (const std::string use : {"{{ n | tojson }}", "{{ n | string }}", "{{ n }}", "{{ n.list }}"})
    CHECK_THAT(error_of(space + use), Catch::Contains("namespace"));
  CHECK(render(space + "{{ n == n }}{{ n.list == n.list }}{{ n in n.list }}") == "TrueTrueTrue");
  CHECK(render(space + "{% set n.f = n.list.count %}{% macro m() %}{% set n.c = caller %}{% endmacro %}" +
               "{% set n.m = m %}{% call m() %}{% endcall %}1") == "1");
}

TEST_CASE("a template cannot change lists and dictionaries, as in transformers") {
  for (const std::string use : {"{{ [1].append(2) }}", "{{ [2, 1].sort() }}", "{{ {}.update({'a': 1}) }}",
                                "{{ messages.pop() }}", "{{ messages[0].clear() }}", "{% set messages.x = 1 %}"})
    CHECK(error_of(use) != "no error");
}

TEST_CASE("deeply nested values are destroyed, and using them is an error") {
  const std::string deep = "{% set n = namespace(x=[]) %}{% for i in range(100000) %}{% set n.x = [n.x] %}{% endfor %}";
  CHECK(render(deep + "{% set n.x = 1 %}{{ n.x }}") == "1");
  CHECK_THAT(error_of(deep + "{{ n.x }}"), Catch::Contains("nested deeper than 1000"));
  const std::string tuple = "{% set n = namespace(x=()) %}{% for i in range(5000) %}{% set n.x = (n.x,) %}{% endfor %}";
  for (const std::string use :
       {"{{ n.x in {1: 2} }}", "{{ n.x == (n.x,) }}", "{{ n.x < (n.x,) }}", "{{ n.x | tojson }}"})
    CHECK(error_of(tuple + use) != "no error");
  const std::string wide = "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}";
  for (const std::string use : {"{{ n.x }}", "{{ n.x | tojson }}", "{{ n.x | string }}"})
    CHECK_THAT(error_of(wide + use), Catch::Contains("MiB") || Catch::Contains("GiB"));
}

TEST_CASE("recursion through a macro or a caller is stopped") {
  CHECK_THAT(error_of("{% set n = namespace() %}{% macro m() %}{% set n.f = caller %}{{ caller() }}{% endmacro %}"
                      "{% call m() %}{{ n.f() }}{% endcall %}"),
             Catch::Contains("nested deeper than 50"));
  CHECK_THAT(error_of("{% macro f(x=f()) %}{% endmacro %}{{ f() }}"), Catch::Contains("nested deeper than 1000"));
  CHECK_THAT(error_of("{% macro f(x) %}{{ " + repeat("not ", 500) + "f(x) }}{% endmacro %}{{ f(1) }}"),
             Catch::Contains("nested deeper than 1000"));
}

TEST_CASE("values that are too large, or too many, are not created") {
  for (const std::string& made : std::vector<std::string>{
           "'a' * 99999999999", "'' * 99999999999", "99999999999 * 'a'",
           "('a' * 1000)" + repeat("|replace('a', 'a' * 1000)", 3), "('a' * 5000)|replace('', 'a' * 5000)",
           "'a'|indent(99999999999, first=true)", "('a\n' * 5000)|indent('b' * 5000)",
           "[1, 2]|tojson(indent=2000000000)", "range(5000)|join('a' * 5000)", "('a' * 5000).join('b' * 5000)",
           "'a' * 5000 * 5000", "[1, 2]|tojson(indent=' ' * 16000000)",
           std::string("range(5000)|list|tojson(separators=['a' * 5000, 'b'])")})
    CHECK_THAT(error_of("{{ " + made + " }}"), Catch::Contains("a value is larger than 16 MiB"));
  const std::string large = "{% set a = 'a' * 100000 %}";
  for (const std::string& many : std::vector<std::string>{
           "{% for i in range(190000) %}{{ a }}{% endfor %}", "{{ '{}' * 100 ~ a }}" + repeat("{{ a ~ a ~ a }}", 2000),
           "{% for i in range(190000) %}{% if 1 %}{{ a }}{% endif %}{% endfor %}"})
    CHECK_THAT(error_of(large + many), Catch::Contains("more than 256 MiB of text and values in memory"));
  CHECK_THAT(error_of("{% set a = range(1000000) %}{% set b = range(1000000) %}"), Catch::Contains("256 MiB"));
  CHECK_THAT(error_of("{% for i in range(1000000) %}{% break %}{% endfor %}"), Catch::Contains("200000 items"));
}

TEST_CASE("a single step of quadratic time is stopped") {
  const std::string half = "{% set a = 'a' * 1000000 %}{% set t = a ~ a %}{% set s = a ~ 'b' %}";
  for (const std::string& work :
       std::vector<std::string>{"{{ s in t }}", "{{ t.split(s) }}", "{{ t.rsplit(s) }}", "{{ t | replace(s, 'c') }}",
                                "{{ t.find(s) }}", "{{ t.count(s) }}", "{{ t.partition(s) }}", "{{ t.strip(s) }}",
                                "{% set r = range(190000) %}{% for i in r %}{{ r | max }}{{ -1 in r }}{% endfor %}"})
    CHECK_THAT(error_of(half + work), Catch::Contains("more than 16 GiB of text and values to process"));
}

TEST_CASE("long texts with many lines render") {
  const std::string lines = "{% set a = 'a' * 10 ~ '\n' %}{% set a = (a * 100000) | string %}";
  CHECK(render(lines + "{{ a.split('\n') | length }} {{ a | replace('\n', '') | length }}") == "100001 1000000");
  const std::vector<peft::Message> megabytes(3, {"user", repeat("a line of a text\n", 200000)});
  CHECK(peft::ChatTemplate::parse("{% for m in messages %}{{ m.content | trim }}{% endfor %}", {})
            ->render(megabytes, false)
            .size() > 9'000'000);
}

TEST_CASE("invalid arithmetic and inconsistent sort orders are errors") {
  for (const std::string use : {"{{ 5 is divisibleby(0) }}", "{{ 1 / 0 }}", "{{ 1 // 0 }}", "{{ 1.0 % 0 }}"})
    CHECK_THAT(error_of(use), Catch::Contains("division by zero"));
  for (const std::string use :
       {"{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}", "{{ 9223372036854775807 * 2 }}",
        "{{ 99999999999999999999 }}", "{{ -(-9223372036854775807 - 1) }}", "{{ (-9223372036854775807 - 1) // -1 }}"})
    CHECK_THAT(error_of(use), Catch::Contains("beyond 64 bits"));
  CHECK(render("{{ (-9223372036854775807 - 1) is divisibleby(-1) }}") == "True");
  CHECK_THAT(error_of("{{ [10, '9', 9, '11', 100, '1'] | sort }}"), Catch::Contains("unsupported operand types"));
}

TEST_CASE("what is undefined cannot be used, only printed and tested") {
  CHECK(render("[{{ missing }}{{ messages[0].missing }}{{ missing is defined }}{{ pad_token }}]") == "[False]");
  CHECK_THAT(error_of("{{ missing.attribute }}"), Catch::Contains("'missing' is undefined"));
  CHECK_THAT(error_of("{{ messages[0].missing + 'a' }}"), Catch::Contains("has no attribute 'missing'"));
}

TEST_CASE("a macro whose scope is left keeps what it needs") {
  CHECK(render("{% set n = namespace() %}{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}{% set n.f = f %}"
               "{% endfor %}{{ n.f() }}") == "2");
}

TEST_CASE("the date is the same on every day and in every time zone") {
  setenv("TZ", "Pacific/Kiritimati", 1);
  tzset();
  const std::string date = render("{% if strftime_now is defined %}{{ strftime_now('%d %b %Y %H:%M') }}{% endif %}");
  const std::string error = error_of("{{ strftime_now('%%s %s') }}");
  unsetenv("TZ");
  tzset();
  CHECK(date == "26 Jul 2024 00:00");
  CHECK_THAT(error, Catch::Contains("%s depends on the time zone"));
}

TEST_CASE("threads can share a template") {
  const auto shared = peft::ChatTemplate::parse("{% for m in messages %}{{ m.content }}{% endfor %}", {});
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (auto& text : texts)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) text += shared->render(hello, false);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(texts == std::vector<std::string>(4, repeat("hello", 200)));
}
