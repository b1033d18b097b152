// Checks that each record of an accepted data file is an object, that the line numbers are in order and in the file,
// and that a format is detected.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "bytes.h"
#include "data/formats.h"
#include "data/records.h"
#include "json_tree.h"
#include "target.h"

namespace peft::fuzz {

namespace {

namespace fs = std::filesystem;

/// A data file that is deleted at the end of the program.
class File {
 public:
  File() : path_(fs::temp_directory_path() / ("INPUT_" + std::to_string(::getpid()) + ".jsonl")) {}
  ~File() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::string write(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary) << bytes;
    return path_.string();
  }

 private:
  fs::path path_;
};

void run(const std::string& bytes) {
  static const File file;
  const data::RecordFile records(file.write(bytes));
  expect(records.size() > 0, "a file without records");
  const int64_t lines = 1 + std::count(bytes.begin(), bytes.end(), '\n');
  std::string format;
  int64_t line = 1;
  for (std::size_t i = 0; i < records.size(); ++i) {
    expect(records.line(i) >= line && records.line(i) <= lines, "a line out of order");
    line = records.line(i);
    const data::Json object = records.parse(i);
    expect(object.is_object(), "a record that is not an object");
    if (format.empty()) format = data::detect_format(object, {}, records.where(i));
    const data::Record record = data::read_record(object, format, {}, i % 2 == 0, records.where(i));
    expect(record.turns.empty() || i % 2 == 0, "a conversation without a template");
  }
}

std::vector<std::string> lines_of(const std::string& bytes) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at <= bytes.size();) {
    const std::size_t end = std::min(bytes.find('\n', at), bytes.size());
    lines.push_back(bytes.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

std::string join(const std::vector<std::string>& lines, const std::string& glue) {
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) out += (i == 0 ? "" : glue) + lines[i];
  return out;
}

std::string mutate(const std::string& bytes, const std::string& other, Random& random) {
  if (random.one_in(8)) return mutate_bytes(bytes, other, random);
  std::vector<std::string> lines = lines_of(bytes);
  const std::vector<std::string> donors = lines_of(other);
  std::string& line = random.pick(lines);
  static const std::string glues[] = {"\r\n", ",\n", "\n\n", "\r", " ", "\n\t\n", "\xEF\xBB\xBF\n"};
  switch (random.below(8)) {
    case 0:
      return join(lines, random.pick(glues));
    case 1:
      return "[" + join(lines, ",\n") + "]";
    case 2:
      return (random.one_in(2) ? "\xEF\xBB\xBF" : " \n") + bytes;
    case 3:
      lines.push_back(line);
      break;
    case 4:
      line = random.pick(donors);
      break;
    default:
      line = mutate_json(line, random.pick(donors), random);
  }
  return join(lines, "\n");
}

}  // namespace

const Target target = {"jsonl", "INPUT", run, mutate};

}  // namespace peft::fuzz
