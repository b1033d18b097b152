#include "data/records.h"

#include <algorithm>
#include <filesystem>

#include "base/strict_json.h"
#include "peft/base/error.h"
#include "peft/files/json.h"

namespace peft::data {
namespace {

constexpr std::size_t max_file_bytes = std::size_t{4} << 30;
constexpr std::size_t max_depth = 64;
constexpr std::string_view blank = " \t\r\n";

std::string read_file(const std::string& path, const std::string& name) {
  const std::filesystem::path file(path);
  if (file.extension() != ".json" && file.extension() != ".jsonl")
    throw InputError(name + ": data must be a .json or .jsonl file");
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) throw InputError(name + ": there is no such data file");
  std::string text = read_text(path, max_file_bytes);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  return text;
}

/// The end of the JSON value that starts at `i`: the first comma or closing bracket outside strings and brackets.
std::size_t skip_value(std::string_view text, std::size_t i) {
  bool quoted = false;
  for (int64_t depth = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (depth == 0 && (c == ',' || c == ']' || c == '}')) {
      break;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return std::min(i, text.size());
}

/// The position of a record takes more bytes than a short record, so anything else is refused before there are
/// millions.
bool may_be_object(std::string_view record) {
  const std::size_t begin = record.find_first_not_of(blank);
  return begin != std::string_view::npos && record[begin] == '{';
}

}  // namespace

RecordFile::RecordFile(const std::string& path) : name_(printable(path, 1000)), text_(read_file(path, name_)) {
  const std::size_t begin = text_.find_first_not_of(blank);
  if (begin == std::string::npos) throw InputError(name_ + ": is empty");
  if (text_[begin] == '[')
    split_array(begin);
  else
    split_lines();
  if (records_.empty()) throw InputError(name_ + ": has no records");
}

void RecordFile::add(std::string_view record, int64_t line) {
  records_.push_back({record, line});
  if (!may_be_object(record)) parse(records_.size() - 1);
}

void RecordFile::split_lines() {
  const std::string_view text = text_;
  int64_t line = 1;
  for (std::size_t i = 0; i < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', i), text.size());
    const std::string_view record = text.substr(i, end - i);
    if (record.find_first_not_of(blank) != std::string_view::npos) add(record, line);
    i = end + 1;
  }
}

void RecordFile::split_array(std::size_t begin) {
  const std::string_view text = text_;
  std::size_t i = begin, counted = 0;
  int64_t line = 1;
  const auto line_at = [&](std::size_t to) {  // `to` only grows
    line += std::count(text.begin() + counted, text.begin() + to, '\n');
    counted = to;
    return line;
  };
  const auto skip_blank = [&] { i = std::min(text.find_first_not_of(blank, i), text.size()); };
  ++i;
  skip_blank();
  if (i < text.size() && text[i] == ']') return;
  for (bool more = true; more; ++i) {
    skip_blank();
    const std::size_t start = i;
    i = skip_value(text, i);
    add(text.substr(start, i - start), line_at(start));
    if (i == text.size())
      fail(line, "the array is not closed: the record that starts here is truncated, or ']' is missing");
    if (text[i] == '}') fail(line_at(i), "not JSON: a '}' without a '{'");
    more = text[i] == ',';
  }
  skip_blank();
  if (i < text.size()) fail(line_at(i), "text after the array's end");
}

void RecordFile::fail(int64_t line, const std::string& message) const {
  throw InputError(name_ + ":" + std::to_string(line) + ": " + message);
}

std::string RecordFile::where(std::size_t index) const { return name_ + ":" + std::to_string(records_.at(index).line); }

nlohmann::json RecordFile::parse(std::size_t index) const {
  const Raw& raw = records_.at(index);
  const std::string place = where(index);
  nlohmann::json value;
  try {
    value = read_strict_json(raw.text, place, max_depth);
  } catch (const JsonSyntaxError& error) {  // its text quotes the file, which messages must not
    const std::size_t at = std::min(raw.text.size(), error.position > 0 ? error.position - 1 : 0);
    const std::string_view before = raw.text.substr(0, at);
    const std::size_t newline = before.rfind('\n');
    const std::size_t column = newline == std::string_view::npos ? at + 1 : at - newline;
    fail(raw.line + std::count(before.begin(), before.end(), '\n'),
         "not JSON (at column " + std::to_string(column) +
             "); a data file holds one object per line, or one array of objects");
  }
  if (!value.is_object()) fail(raw.line, std::string("must be an object, is ") + value.type_name());
  return value;
}

}  // namespace peft::data
