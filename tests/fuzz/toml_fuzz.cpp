// Checks that an accepted experiment, also with --set, is equal after it is written as resolved.toml and read back. A
// comment
// `#set X` in the input means --set X. INPUT must be near its start, because messages contain the assignment instead of
// the file name.
#include <vector>

#include "bytes.h"
#include "peft/options/document.h"
#include "peft/options/options.h"
#include "target.h"

namespace peft::fuzz {

namespace {

/// Reads an option of each type.
void read_table(Options in) {
  bool flag = false;
  int64_t count = 1;
  double rate = 0.5;
  std::string text = "a";
  StringList names;
  IntList layers;
  StringOrList targets = StringList{};
  BoolOrString init = true;
  IntMap ranks;
  NumberMap alphas;
  BoolListMap masks;
  std::optional<double> ratio;
  in.get("flag", flag, "h");
  in.get("count", count, "h").require(count > 0, "must be positive");
  in.get("rate", rate, "h");
  in.get("text", text, "h");
  in.get("names", names, "h");
  in.get("layers", layers, "h");
  in.get("targets", targets, "h");
  in.get("init", init, "h");
  in.get("ranks", ranks, "h");
  in.get("alphas", alphas, "h");
  in.get("masks", masks, "h");
  in.get("ratio", ratio, "h");
  std::string path;
  in.get_path("path", path, "h");
  Options inner = in.table("inner");
  inner.get("count", count, "h");
}

std::string resolve(Document& document) {
  read_table(document.table("t"));
  for (Options& table : document.tables("u")) read_table(std::move(table));
  document.finish();
  return document.resolved();
}

void run(const std::string& bytes) {
  Document document = Document::from_text(bytes, "INPUT");
  for (std::size_t at = 0; (at = bytes.find("#set ", at)) != bytes.npos;) {
    at += 5;
    const std::string assignment = bytes.substr(at, bytes.find('\n', at) - at);
    if (assignment.find("INPUT") < 40) document.set(assignment);  // else messages may truncate it
  }
  const std::string written = resolve(document);
  Document again = Document::from_text(written, "INPUT");
  expect(resolve(again) == written, "options that read back differently");
}

constexpr const char* keys[] = {"flag",    "count", "rate",        "text",       "names",         "layers",
                                "targets", "init",  "ranks",       "alphas",     "masks",         "ratio",
                                "path",    "inner", "inner.count", "ranks.a",    "ranks.\"a b\"", "cuont",
                                "\"\"",    "'x'",   "a.b.c",       "masks.INPUT"};
constexpr const char* values[] = {"true",
                                  "1",
                                  "-1",
                                  "0",
                                  "0.5",
                                  "1e3",
                                  "inf",
                                  "-nan",
                                  "+0x1F",
                                  "0b11",
                                  "0o17",
                                  "1_000",
                                  "9223372036854775807",
                                  "9223372036854775808",
                                  "1e400",
                                  "\"a\"",
                                  "'a'",
                                  "\"\"\"\na\"\"\"\"\"",
                                  "'''a\nb'''",
                                  "\"\\u001b\\U0001F600\"",
                                  "\"\\ud800\"",
                                  "[]",
                                  "[1, 2]",
                                  "[\"a\", \"b\"]",
                                  "[1, \"a\", [true]]",
                                  "{a = 1}",
                                  "{}",
                                  "{a = [true, false], b = []}",
                                  "{a.b = 1}",
                                  "1979-05-27T07:32:00Z",
                                  "07:32:00",
                                  "[[1.5], {a = \"]\"}]",
                                  "\"INPUT\""};
constexpr const char* headers[] = {"[t]",
                                   "[[u]]",
                                   "[t.inner]",
                                   "[u]",
                                   "[t.ranks]",
                                   "[[t]]",
                                   "[x]",
                                   "[t",
                                   "[\"t\"]",
                                   "[t . inner ]",
                                   "#set t.names=[\"INPUT\"]",
                                   "#set t.text=INPUT",
                                   "#set u.0.text=INPUT",
                                   "#set t.path=\"INPUT\"",
                                   "#set t.ranks={INPUT=1}"};

std::string any_line(Random& random) {
  if (random.one_in(4)) return random.pick(headers);
  std::string key = random.pick(keys), value = random.pick(values);
  if (random.one_in(4)) value = random.one_in(2) ? nasty_digits(random, 64) : '"' + nasty_text(random) + '"';
  if (random.one_in(12))
    for (std::size_t parts = random.below(150); parts > 0; --parts) key += ".a";
  for (std::size_t levels = random.one_in(12) ? random.below(150) : 0; levels > 0; --levels)
    value = random.one_in(2) ? '[' + value + ']' : "{a = " + value + '}';
  return key + " = " + value;
}

/// Deletes, duplicates or moves a line, takes one from `other` or creates one.
std::string mutate(const std::string& bytes, const std::string& other, Random& random) {
  if (random.one_in(4)) return mutate_bytes(bytes, other, random);
  const auto line_at = [&](const std::string& text) {
    const std::size_t begin = text.rfind('\n', random.below(text.size()));
    const std::size_t from = begin == text.npos ? 0 : begin + 1;
    return Piece{from, std::min(text.find('\n', from), text.size()) - from};
  };
  std::string out = bytes;
  const Piece line = line_at(out), given = line_at(other);
  switch (random.below(5)) {
    case 0:
      out.erase(line.at, line.size);
      break;
    case 1:
      out.insert(line.at, out.substr(line.at, line.size) + "\n");
      break;
    case 2:
      out.insert(line.at, other.substr(given.at, given.size) + "\n");
      break;
    case 3:
      out.replace(line.at, line.size, any_line(random));
      break;
    default:
      out.insert(line.at, any_line(random) + "\n");
  }
  return out;
}

}  // namespace

const Target target = {"toml", "INPUT", run, mutate};

}  // namespace peft::fuzz
