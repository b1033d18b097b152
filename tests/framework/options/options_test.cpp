// Shows for typed options: absent keys keep their defaults; all errors of a file are reported at once, each with file,
// line and column; the only conversion is from an integer to a number; the options of a run can be written as TOML that
// reads back as the same values.
#include "peft/options/options.h"
#include "peft/options/document.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "peft/base/error.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;

namespace {

struct Everything {
  bool flag = true;
  int64_t count = 3;
  double rate = 0.1;
  std::string text = "a \"quoted\" \\ line\n\ttab \x7f é";
  StringList names = {"q_proj", ""};
  IntList layers = {1, -2};
  StringOrList targets = std::string("all-linear");
  BoolOrString init = true;
  IntMap ranks = {{"model.layers.0", 8}, {"q_proj", 4}};
  NumberMap alphas = {{"k proj", 1.5}};
  BoolListMap masks = {{"a.b", {true, false}}, {"empty", {}}};
  IntPairList ranges = {{0, 4}, {2, 5}};
  std::optional<IntListOrMap> tokens = IntListMap{{"lm_head", {7}}, {"none", {}}};
  std::optional<int64_t> steps;
  std::optional<double> ratio = 0.25;
  std::optional<std::string> note;
  std::optional<StringList> list;
  std::optional<StringOrList> exclude;
  std::optional<IntList> indices;
  bool operator==(const Everything&) const = default;
};

void read(Options in, Everything& o) {
  in.get("flag", o.flag, "h");
  in.get("count", o.count, "h").require(o.count > 0, "must be positive");
  in.get("rate", o.rate, "h");
  in.get("text", o.text, "h");
  in.get("names", o.names, "h");
  in.get("layers", o.layers, "h");
  in.get("targets", o.targets, "h");
  in.get("init", o.init, "h");
  in.get("ranks", o.ranks, "h");
  in.get("alphas", o.alphas, "h");
  in.get("masks", o.masks, "h");
  in.get("ranges", o.ranges, "h");
  in.get("tokens", o.tokens, "h");
  in.get("steps", o.steps, "h");
  in.get("ratio", o.ratio, "h");
  in.get("note", o.note, "h");
  in.get("list", o.list, "h");
  in.get("exclude", o.exclude, "h");
  in.get("indices", o.indices, "h");
}

std::string errors_of(Document& document) {
  try {
    document.finish();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::string errors_of(const std::string& toml) {
  Document document = Document::from_text(toml, "exp.toml");
  Everything o;
  read(document.table("t"), o);
  return errors_of(document);
}

/// The error of one key of [t], which is on line 2.
std::string error_of(const std::string& line) { return errors_of("[t]\n" + line + "\n"); }

}  // namespace

TEST_CASE("an absent key leaves the value unchanged", "[options]") {
  Document document = Document::from_text("");
  Everything o;
  read(document.table("t"), o);
  document.finish();
  CHECK(o == Everything());
}

TEST_CASE("every type is read", "[options]") {
  Document document = Document::from_text(R"([t]
flag = false
count = 9
rate = 2
text = "x"
names = ["a"]
layers = []
targets = ["q", "v"]
init = "gaussian"
ranks = { "a.b" = 1 }
alphas = { a = 1, b = 2.5 }
ranges = [[-1, 3]]
tokens = [5, 6]
steps = 7
ratio = 1e-3
note = ""
list = ["l"]
exclude = "x.*"
indices = [0]
)");
  Everything o;
  read(document.table("t"), o);
  document.finish();
  Everything want;
  want.flag = false, want.count = 9, want.rate = 2, want.text = "x", want.names = {"a"}, want.layers = {};
  want.targets = StringList{"q", "v"}, want.init = std::string("gaussian"), want.ranks = {{"a.b", 1}};
  want.alphas = {{"a", 1}, {"b", 2.5}}, want.steps = 7, want.ratio = 1e-3, want.note = "", want.list = StringList{"l"};
  want.exclude = std::string("x.*"), want.indices = IntList{0};
  want.ranges = {{-1, 3}}, want.tokens = IntList{5, 6};
  CHECK(o == want);
}

TEST_CASE("a wrong type is refused with the actual and the required type", "[options]") {
  CHECK(error_of("flag = 1") == "exp.toml:2:8: [t] 'flag' must be a boolean, not an integer");
  CHECK(error_of("count = 1.0") == "exp.toml:2:9: [t] 'count' must be an integer, not a number");
  CHECK(error_of("count = \"1\"") == "exp.toml:2:9: [t] 'count' must be an integer, not a string");
  CHECK(error_of("rate = true") == "exp.toml:2:8: [t] 'rate' must be a number, not a boolean");
  CHECK(error_of("rate = nan") == "exp.toml:2:8: [t] 'rate' must be a finite number, not nan");
  CHECK(error_of("rate = -inf") == "exp.toml:2:8: [t] 'rate' must be a finite number, not inf");
  CHECK(error_of("rate = -1.1e30") == "exp.toml:2:8: [t] 'rate' must be a number, not one beyond 1e30");
  CHECK(error_of("text = 2024-01-01") == "exp.toml:2:8: [t] 'text' must be a string, not a date or time");
  CHECK(error_of("names = \"a\"") == "exp.toml:2:9: [t] 'names' must be a list of strings, not a string");
  CHECK(error_of("names = [\"a\", 2]") ==
        "exp.toml:2:15: [t] 'names' must be a list of strings; this element is an integer");
  CHECK(error_of("targets = 3") ==
        "exp.toml:2:11: [t] 'targets' must be a string or a list of strings, not an integer");
  CHECK(error_of("init = []") == "exp.toml:2:8: [t] 'init' must be a boolean or a string, not a list");
  CHECK(error_of("ranks = { a = 1.5 }") ==
        "exp.toml:2:15: [t] 'ranks' must be a table of integers; this element is a number");
  CHECK(error_of("ranges = [[0, 4], [2]]") ==
        "exp.toml:2:19: [t] 'ranges' must be a list of pairs of integers; this element is a list");
  CHECK(error_of("ranges = [1]") ==
        "exp.toml:2:11: [t] 'ranges' must be a list of pairs of integers; this element is an integer");
  CHECK(error_of("tokens = { a = [true] }") ==
        "exp.toml:2:17: [t] 'tokens' must be a list of integers or a table of such lists; this element is a boolean");
  CHECK(error_of("steps = \"x\"") == "exp.toml:2:9: [t] 'steps' must be an integer, not a string");
}

TEST_CASE("a value of the wrong type is not read, and its rules are not checked", "[options]") {
  Document document = Document::from_text("[t]\ncount = \"x\"\n", "exp.toml");
  int64_t count = -1;
  document.table("t").get("count", count, "h").require(count > 0, "must be positive");
  CHECK(count == -1);
  CHECK(errors_of(document) == "exp.toml:2:9: [t] 'count' must be an integer, not a string");
}

TEST_CASE("all errors are reported at once, in the order of the file", "[options]") {
  CHECK(errors_of("stray = 1\n[t]\ncuont = 1\nrate = \"x\"\ncount = -1\n[tt]\nx = 1\n[other]\n") ==
        "exp.toml:1:1: key 'stray' outside any table; known tables: [t]\n"
        "exp.toml:3:1: [t] unknown key 'cuont'; did you mean 'count'?\n"
        "exp.toml:4:8: [t] 'rate' must be a number, not a string\n"
        "exp.toml:5:9: [t] 'count' must be positive\n"
        "exp.toml:6:2: unknown table [tt]; did you mean [t]?\n"
        "exp.toml:8:2: unknown table [other]; known tables: [t]");
}

TEST_CASE("a number or a list of tables is refused as a table", "[options]") {
  CHECK(errors_of("t = 3") == "exp.toml:1:1: 't' must be a table, written [t], not an integer");
  CHECK(errors_of("[[t]]\n[[t]]\n") == "exp.toml:1:3: [t] is a list of tables; there can be only one, written [t]");
}

TEST_CASE("the tables of a list are read in order", "[options]") {
  Document document = Document::from_text("[[t]]\ncount = 1\n[[t]]\ncount = 2\n[u]\ncount = 3\n", "exp.toml");
  document.set("t.1.count=5");
  std::vector<Options> tables = document.tables("t"), one = document.tables("u"), none = document.tables("v");
  REQUIRE(tables.size() == 2);
  REQUIRE(one.size() == 1);
  REQUIRE(none.size() == 1);
  std::vector<int64_t> counts;
  for (auto* list : {&tables, &one, &none})
    for (Options& table : *list) table.get("count", counts.emplace_back(9), "h");
  document.finish();
  CHECK(counts == std::vector<int64_t>{1, 5, 3, 9});
  CHECK(document.resolved() == "[[t]]\ncount = 1\n\n[[t]]\ncount = 5\n\n[u]\ncount = 3\n\n[v]\ncount = 9\n");
}

TEST_CASE("errors in a list of tables are reported", "[options]") {
  Document document = Document::from_text("[[t]]\ncuont = 1\n[[t]]\ncount = \"x\"\n", "exp.toml");
  for (const char* set : {"t.count=1", "t.2.count=1", "t.x.count=1", "t.-1.count=1"})
    CHECK(has(message_of<ConfigError>([&] { document.set(set); }),
              "add the index of one of them, starting at 0: --set t.0."));
  CHECK(has(message_of<ConfigError>([&] { document.set("t.0.a b=1"); }), "write table.key=value"));
  int64_t count = 0;
  for (Options& table : document.tables("t")) table.get("count", count, "h");
  CHECK(message_of<ConfigError>([&] { document.finish(); }) ==
        "exp.toml:2:1: [t] unknown key 'cuont'; did you mean 'count'?\n"
        "exp.toml:4:9: [t] 'count' must be an integer, not a string");
  Document mixed = Document::from_text("t = [{count = 1}, 3]\n", "exp.toml");
  for (Options& table : mixed.tables("t")) table.get("count", count, "h");
  CHECK(message_of<ConfigError>([&] { mixed.finish(); }) ==
        "exp.toml:1:19: each 't' must be a table, written [[t]], not an integer");
}

TEST_CASE("a syntax error is reported with its location", "[options]") {
  CHECK(has(message_of<ConfigError>([] { Document::from_text("[t]\nx = \n", "exp.toml"); }), "exp.toml:2:"));
  CHECK(has(message_of<ConfigError>([] { Document::from_text("[t]\nx = 1\nx = 2\n", "exp.toml"); }), "exp.toml:3:"));
  CHECK_THROWS_AS(Document::from_text("[t]\nx = \"\xff\"\n"), ConfigError);
  CHECK_THROWS_AS(Document::from_text("x = " + std::string(100000, '[')), ConfigError);
  CHECK_THROWS_AS(Document::from_text(std::string("x = 1\0y = 2", 11)), ConfigError);
  CHECK(message_of<ConfigError>([] { Document::from_file("/nonexistent/exp.toml"); }) ==
        "/nonexistent/exp.toml: No such file or directory");
  CHECK(message_of<ConfigError>([] { Document::from_file("/dev/zero"); }) == "/dev/zero: not a regular file");
}

TEST_CASE("deep nesting is refused before it is parsed", "[options]") {
  const auto dotted = [](int parts) {
    std::string key = "a";
    for (int i = 1; i < parts; ++i) key += ".a";
    return key;
  };
  const auto refused = [](const std::string& toml) {
    return message_of<ConfigError>([&] { Document::from_text(toml, "exp.toml"); });
  };
  CHECK(refused(dotted(101) + " = 1").empty());
  CHECK(refused("[" + dotted(90) + "]\nb.c = [[1.5], {d.e = 2}]\n").empty());
  CHECK(refused("x = 1\n" + dotted(100000) + " = 1") == "exp.toml:2: nested deeper than 100 levels");
  CHECK(refused("x = 1\n[" + dotted(100000) + "]") == "exp.toml:2: nested deeper than 100 levels");
  CHECK(has(refused(dotted(60) + " = {" + dotted(60) + " = 1}"), "nested deeper"));
  CHECK(has(refused("x = [\"\"\"a\"\"\"\"\", {" + dotted(200) + " = 1}]"), "nested deeper"));
  std::string within = "{b = 1}";
  for (int i = 0; i < 50; ++i) within = "{" + dotted(50) + " = " + within + "}";
  CHECK(has(refused("x = " + within), "nested deeper"));
  CHECK(has(message_of<ConfigError>([&] { Document::from_text("[t]\n").set("t.x={" + dotted(200) + "=1}"); }),
            "nested deeper"));
  const std::string dots(1000, '.');  // in strings and comments
  CHECK(refused("x = \"" + dots + "\" # " + dots + "\ny = '''\n" + dots + "'''\nz = \"\\\"" + dots + "\"\n").empty());
}

TEST_CASE("of thousands of errors the first 50 are shown", "[options]") {
  std::string many = "[t]\n";
  for (int i = 0; i < 5000; ++i) many += "k" + std::to_string(i) + " = 1\n";
  Document document = Document::from_text(many, "exp.toml");
  Everything o;
  read(document.table("t"), o);
  const std::string message = errors_of(document);
  CHECK(std::count(message.begin(), message.end(), '\n') == 50);
  CHECK(has(message, "exp.toml:2:1: [t] unknown key 'k0'"));
  CHECK(message.ends_with("\n… and 4950 more"));
}

TEST_CASE("--set overrides values in the file", "[options]") {
  Document document = Document::from_text("[t]\ncount = 1\ntext = \"file\"\n", "exp.toml");
  for (const char* set : {"t.count=5", "t.count=6", "t.text=bare words", "t.rate=1e-3", "t.names=[\"x\"]",
                          "t.flag=false", "t.note=2024-01-01"})
    document.set(set);
  Everything o;
  read(document.table("t"), o);
  document.finish();
  CHECK(o.count == 6);
  CHECK(o.text == "bare words");
  CHECK(o.rate == 1e-3);
  CHECK(o.names == StringList{"x"});
  CHECK_FALSE(o.flag);
  CHECK(o.note == "2024-01-01");
}

TEST_CASE("--set errors name the assignment", "[options]") {
  Document document = Document::from_text("[t]\nx = 1\n", "exp.toml");
  for (const char* bad : {"", "t", "t.count", "count=1", "t.=1", ".count=1", "t.a.b=1", "t x.count=1", "t.text=\"open"})
    CHECK_THROWS_AS(document.set(bad), ConfigError);
  document.set("t.count=0");
  document.set("t.names=[1]");
  document.set("u.x=1");
  document.set("t.text=1\nflag=false");  // a second line does not set a second key
  Everything o;
  read(document.table("t"), o);
  CHECK(o.flag);
  CHECK(
      errors_of(document) ==
      "exp.toml:2:1: [t] unknown key 'x'; known: flag, count, rate, text, names, layers, targets, init, ranks, alphas, "
      "masks, ranges, tokens, steps, ratio, note, list, exclude, indices\n"
      "--set t.count=0: [t] 'count' must be positive\n"
      "--set t.names=[1]: [t] 'names' must be a list of strings; this element is an integer\n"
      "--set u.x=1: unknown table [u]; known tables: [t]");
}

TEST_CASE("resolved TOML reads back as the same values", "[options]") {
  Everything o;
  o.rate = 0.1 + 0.2, o.ratio = std::numeric_limits<double>::denorm_min();
  o.count = std::numeric_limits<int64_t>::max(), o.note = "", o.alphas["big"] = 1e30, o.alphas["two"] = 2;
  Document first = Document::from_text("");
  Everything written = o;
  read(first.table("t"), written);
  Document second = Document::from_text(first.resolved());
  Everything back;
  read(second.table("t"), back);
  second.finish();
  CHECK(back == o);
  CHECK(first.resolved() == second.resolved());
  CHECK_FALSE(has(first.resolved(), "steps"));
}

TEST_CASE("relative paths start at the folder of the file that contains them", "[options]") {
  const auto folder = std::filesystem::temp_directory_path() / "peft_options_test";
  std::filesystem::create_directories(folder / "sub");
  std::ofstream(folder / "sub" / "exp.toml") << "[t]\na = \"../m\"\nb = \"/abs/x\"\nd = [\"p\", \"q\"]\ne = \"one\"\n";
  Document document = Document::from_file((folder / "sub" / "exp.toml").string());
  document.set("t.c=here");
  Options in = document.table("t");
  std::string a, b, c, none, usual = "runs";
  StringList d, e, f;
  in.get_path("a", a, "h");
  in.get_path("b", b, "h");
  in.get_path("c", c, "h");
  in.get_path("none", none, "h");
  in.get_path("usual", usual, "h");
  in.get_paths("d", d, "h");
  in.get_paths("e", e, "h");
  in.get_paths("f", f, "h");
  document.finish();
  CHECK(a == (folder / "m").string());
  CHECK(b == "/abs/x");
  CHECK(c == (std::filesystem::current_path() / "here").string());
  CHECK(none.empty());
  CHECK(usual == (folder / "sub" / "runs").string());
  CHECK(d == StringList{(folder / "sub" / "p").string(), (folder / "sub" / "q").string()});
  CHECK(e == StringList{(folder / "sub" / "one").string()});
  CHECK(f.empty());
  CHECK(has(document.resolved(), "a = \"" + a + "\""));
  CHECK(has(document.resolved(), "f = []"));
  std::filesystem::remove_all(folder);
}

TEST_CASE("an empty table records the options that are read", "[options]") {
  Options in;
  int64_t rank = 8;
  StringOrList targets = StringList{"q_proj"};
  std::optional<double> ratio;
  std::string path;
  in.get("r", rank, "rank of the update").require(false, "never reported");
  in.get("targets", targets, "modules");
  in.get("ratio", ratio, "share");
  in.get_path("path", path, "folder");
  const auto all = in.described();
  REQUIRE(all.size() == 4);
  CHECK(all[0].key == "r");
  CHECK(all[0].type == "integer");
  CHECK(all[0].default_value == "8");
  CHECK(all[0].help == "rank of the update");
  CHECK(all[1].type == "string or list of strings");
  CHECK(all[1].default_value == "[\"q_proj\"]");
  CHECK(all[2].type == "number");
  CHECK(all[2].default_value.empty());
  CHECK(all[3].type == "path");
}

TEST_CASE("a caller's error is located at its key, or at the table", "[options]") {
  Document document = Document::from_text("[t]\na = 1\n", "exp.toml");
  Options in = document.table("t");
  int64_t a = 0;
  in.get("a", a, "h");
  in.error("a", "clashes with 'b'");
  in.error("b", "is needed");
  CHECK(errors_of(document) == "exp.toml:1:1: [t] 'b' is needed\nexp.toml:2:5: [t] 'a' clashes with 'b'");
}

TEST_CASE("names from a file cannot control the terminal", "[options]") {
  CHECK(has(error_of("\"\\u001b[2J\" = 1"), "'\\x1b[2J'"));
}

TEST_CASE("the nearest name is suggested if it is near enough", "[options]") {
  CHECK(nearest("lroa", {"dora", "lora"}) == "lora");
  CHECK(nearest("rr", {"r", "lora_alpha"}) == "r");
  CHECK(nearest("Lora_Alpha", {"r", "lora_alpha"}) == "lora_alpha");
  CHECK(nearest("x", {"r"}).empty());
  CHECK(nearest("target_module", {"target_modules", "exclude_modules"}) == "target_modules");
  CHECK(nearest("zebra", {"lora"}).empty());
  CHECK(nearest(std::string(1 << 20, 'a'), {std::string(1 << 20, 'a')}).empty());
}

TEST_CASE("a nested table has keys, errors and lines in the resolved TOML", "[options]") {
  const auto read = [](Document& document, double& rho, std::string& method) {
    Options options = document.table("adapter");
    int64_t r = 8;
    options.get("r", r, "h");
    Options eva = options.table("eva");
    eva.get("rho", rho, "h").require(rho >= 1, "must be 1 or more");
    options.table("corda").get("method", method, "h");
    CHECK(eva.has("rho") == options.table("eva").has("rho"));
    return options.described();
  };
  double rho = 2;
  std::string method = "ipm";
  Document empty = Document::from_text("");
  const auto described = read(empty, rho, method);
  REQUIRE(described.size() == 3);
  CHECK(described[1].key == "eva.rho");
  CHECK(described[2].key == "corda.method");
  Document nested = Document::from_text("[adapter]\neva = { rho = 3 }\n[adapter.corda]\nmethod = \"kpm\"\n");
  read(nested, rho, method);
  nested.finish();
  CHECK(rho == 3);
  CHECK(method == "kpm");
  rho = 0, method = "";
  Document again = Document::from_text(nested.resolved());
  read(again, rho, method);
  again.finish();
  CHECK(rho == 3);
  CHECK(method == "kpm");
  Document wrong = Document::from_text("[adapter]\neva = { rho = 0.5, ro = 1 }\ncorda = 3\n", "x.toml");
  read(wrong, rho, method);
  const std::string message = message_of<ConfigError>([&] { wrong.finish(); });
  CHECK(has(message, "x.toml:2:15: [adapter.eva] 'rho' must be 1 or more"));
  CHECK(has(message, "x.toml:2:20: [adapter.eva] unknown key 'ro'; did you mean 'rho'?"));
  CHECK(has(message, "x.toml:3:9: [adapter] 'corda' must be a table, not an integer"));
}

namespace {

/// A folder with files, for overlays and hints.
class Files {
 public:
  Files() {
    std::string name = (std::filesystem::temp_directory_path() / "peft_options_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder_ = name;
  }
  ~Files() { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

 private:
  std::filesystem::path folder_;
};

}  // namespace

TEST_CASE("an overlay replaces entire tables, and its paths and errors are its own", "[options]") {
  const Files files;
  const std::string main =
      files.write("exp.toml", "[t]\ncount = 1\nrate = 2.0\n[u]\npath = \"a\"\n[v]\npath = \"a\"\n");
  const std::string other = files.write("sub/other.toml", "[t]\ncount = 5\n[u]\npath = \"b\"\n");
  Document document = Document::from_file(main);
  document.overlay(other);
  document.set("t.text=set");
  Everything o;
  read(document.table("t"), o);
  CHECK(o.count == 5);
  CHECK(o.rate == Everything{}.rate);  // the table is the overlay's
  CHECK(o.text == "set");
  std::string in_overlay, in_file;
  document.table("u").get_path("path", in_overlay, "h");
  document.table("v").get_path("path", in_file, "h");
  CHECK(in_overlay == files.path("sub/b"));
  CHECK(in_file == files.path("a"));
  document.finish();

  Document wrong = Document::from_file(main);
  wrong.overlay(files.write("first.toml", "[t]\ncount = \"x\"\n"));
  wrong.overlay(files.write("second.toml", "[t]\n\ncuont = 1\n[w]\n"));
  wrong.set("t.rate=x");
  read(wrong.table("t"), o);
  wrong.table("u");
  wrong.table("v");
  const std::string second = files.path("second.toml");
  CHECK(message_of<ConfigError>([&] { wrong.finish(); }) ==
        main + ":5:1: [u] unknown key 'path'; known: \n" + main + ":7:1: [v] unknown key 'path'; known: \n" + second +
            ":3:1: [t] unknown key 'cuont'; did you mean 'count'?\n" + second +
            ":4:2: unknown table [w]; known tables: [t], [u], [v]\n--set t.rate=x: [t] 'rate' must be a number, not a "
            "string");
  CHECK(has(message_of<ConfigError>([&] { wrong.overlay(files.path("none.toml")); }), "none.toml: No such file"));
}

TEST_CASE("an overlay's list of tables replaces a table", "[options]") {
  const Files files;
  Document document = Document::from_file(files.write("exp.toml", "[t]\ncount = 1\n"));
  document.overlay(files.write("two.toml", "[[t]]\ncount = 2\n[[t]]\ncount = 3\n"));
  CHECK(document.tables("t").size() == 2);
}

TEST_CASE("the names of other tools are explained", "[options]") {
  const Files files;
  NameHints hints;
  hints.add_file(files.write("a.hints.toml",
                             "[keys]\nlearning_rate = [\"u.lr\"]\nnum = [\"t.count\", \"x.count\"]\n"
                             "bf16 = [\"u.kind = \\\"bf16\\\"\"]\npadding = \"not needed\"\nother = [\"u.absent\"]\n"));
  hints.add_file(files.write("b.hints.toml", "[keys]\nlearning_rate = [\"t.count\"]\n"));  // the first one stays
  hints.add_file(files.write("c.hints.toml", "[keys\n"));
  hints.add_file(files.path("absent"));
  Document document = Document::from_text(
      "learning_rate = 1\n[t]\nlearning_rate = 1\nnum = 2\nbf16 = true\npadding = 3\nother = 4\ncuont = 1\n",
      "exp.toml");
  int loads = 0;
  document.set_hints([&] { return ++loads, hints; });
  Everything o;
  read(document.table("t"), o);
  double lr = 0;
  std::string kind;
  Options u = document.table("u");
  u.get("lr", lr, "h");
  u.get("kind", kind, "h");
  const std::string message = message_of<ConfigError>([&] { document.finish(); });
  CHECK(has(message, "exp.toml:1:1: key 'learning_rate' outside any table; here it is 'lr' in [u]\n"));
  CHECK(has(message, "exp.toml:3:1: [t] unknown key 'learning_rate'; here it is 'lr' in [u]\n"));
  CHECK(has(message, "exp.toml:4:1: [t] unknown key 'num'; here it is 'count'\n"));
  CHECK(has(message, "exp.toml:5:1: [t] unknown key 'bf16'; here it is kind = \"bf16\" in [u]\n"));
  CHECK(has(message, "exp.toml:6:1: [t] unknown key 'padding'; it has no counterpart here: not needed\n"));
  CHECK(has(message, "exp.toml:7:1: [t] unknown key 'other'; known: "));  // no option of this experiment
  CHECK(has(message, "exp.toml:8:1: [t] unknown key 'cuont'; did you mean 'count'?"));
  CHECK(loads == 1);
}

TEST_CASE("hints are not read without a mistake", "[options]") {
  Document document = Document::from_text("[t]\ncount = 1\n");
  document.set_hints([]() -> NameHints { throw std::logic_error("read"); });
  Everything o;
  read(document.table("t"), o);
  document.finish();
}

TEST_CASE("a missing plugin is reported at its name, and its other keys are not checked", "[options]") {
  const char* const text = "[t]\nname = \"x\"\ncount = 1\nany = 2\n";
  Document document = Document::from_text(text, "exp.toml");
  std::string name;
  Options table = document.table("t");
  table.get("name", name, "h");
  document.reject_plugin(table, "no plugin 'x'");
  CHECK(message_of<PluginError>([&] { document.finish(); }) == "exp.toml:2:8: [t] no plugin 'x'");
  Document both = Document::from_text(std::string(text) + "[u]\nwrong = 1\n", "exp.toml");
  Options again = both.table("t");
  again.get("name", name, "h");
  both.reject_plugin(again, "no plugin 'x'");
  both.table("u");
  CHECK(has(message_of<ConfigError>([&] { both.finish(); }), "no plugin 'x'\nexp.toml:6:1: [u] unknown key 'wrong'"));
}

TEST_CASE("of names at the same distance the one with the same beginning is suggested", "[options]") {
  CHECK(nearest("rr", {"lr", "r"}) == "r");
  CHECK(nearest("rr", {"r", "lr"}) == "r");
  CHECK(nearest("lrr", {"lr", "r"}) == "lr");
}

TEST_CASE("a path's ~/ is the home folder; a variable is refused unless such a file exists", "[options]") {
  const Files files;
  const char* const home = std::getenv("HOME");
  const std::string before = home == nullptr ? "" : home;
  ::setenv("HOME", files.path("home").c_str(), 1);
  const auto path_of = [&](const std::string& written) {
    Document document = Document::from_file(files.write("exp.toml", "[t]\npath = '" + written + "'\n"));
    std::string path;
    document.table("t").get_path("path", path, "h");
    const std::string error = message_of<ConfigError>([&] { document.finish(); });
    return error.empty() ? path : error;
  };
  CHECK(path_of("~/models/a") == files.path("home/models/a"));
  CHECK(path_of("a/~/b") == files.path("a/~/b"));
  CHECK(path_of("~other/b") == files.path("~other/b"));
  CHECK(has(path_of("$HOME/models"), "[t] 'path' contains '$', but variables are not expanded"));
  CHECK(has(path_of("runs/${NAME}"), "variables are not expanded"));
  files.write("$HOME", "");
  CHECK(path_of("$HOME") == files.path("$HOME"));
  CHECK(path_of("price$") == files.path("price$"));
  CHECK(path_of("what?") == files.path("what?"));  // for example a new output folder
  ::unsetenv("HOME");
  CHECK(path_of("~/a") == files.path("~/a"));
  if (home != nullptr) ::setenv("HOME", before.c_str(), 1);
}

TEST_CASE("wildcards in a list of files are refused unless such a file exists", "[options]") {
  const Files files;
  files.write("odd*name", "");
  Document document =
      Document::from_file(files.write("exp.toml", "[t]\nfiles = [\"odd*name\", \"a.jsonl\", \"*.jsonl\"]\n"));
  StringList paths;
  document.table("t").get_paths("files", paths, "h");
  CHECK(paths.front() == files.path("odd*name"));
  CHECK(
      has(message_of<ConfigError>([&] { document.finish(); }),
          "exp.toml:2:9: [t] 'files' contains a wildcard, but wildcards are not expanded; name each file, in a list"));
}

TEST_CASE("a table's options on one line", "[options]") {
  Document document = Document::from_text("[t]\nname = \"x\"\ncount = 4\n");
  Options table = document.table("t");
  std::string name;
  int64_t count = 1;
  double rate = 0.5;
  table.get("name", name, "h");
  table.get("count", count, "h");
  table.get("rate", rate, "h");
  CHECK(document.values("t") == "count = 4, rate = 0.5");
  CHECK(document.values("u").empty());
}
