#include "data/records.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <span>

#include "base/strict_json.h"
#include "data/formats.h"
#include "peft/base/bytes.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "text/unicode.h"

namespace peft::data {
namespace {

constexpr std::size_t max_file_bytes = std::size_t{4} << 30;
constexpr std::size_t max_depth = 64;
constexpr std::string_view blank = " \t\r\n";

/// Why there is no file of that name, if it looks like something that a shell would have replaced; else "".
std::string shell_hint(const std::string& path) {
  if (path.find_first_of("*?[") != std::string::npos) return "; patterns are not expanded: list the files";
  if (path.find('$') != std::string::npos) return "; variables are not expanded: write the path out";
  if (path.starts_with('~') || path.find("/~") != std::string::npos)
    return "; '~' is not expanded: write the path of the home folder";
  return "";
}

std::string read_file(const std::string& path) {
  check_data_file(path);
  std::string text = read_text(path, max_file_bytes);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  return text;
}

/// Follows JSON text through its strings and brackets.
class JsonNesting {
 public:
  bool is_in_string() const { return is_in_string_; }
  int64_t depth() const { return depth_; }  ///< brackets that are open
  /// Takes the character at `i`, which moves to the end of an escape sequence in a string.
  void take(std::string_view text, std::size_t& i) {
    const char c = text[i];
    if (c == '"')
      is_in_string_ = !is_in_string_;
    else if (is_in_string_)
      i += c == '\\' ? 1 : 0;
    else if (c == '{' || c == '[')
      ++depth_;
    else if (c == '}' || c == ']')
      --depth_;
  }

 private:
  bool is_in_string_ = false;
  int64_t depth_ = 0;
};

/// The end of the JSON value that starts at `i`: the first comma or closing bracket outside strings and brackets.
std::size_t skip_value(std::string_view text, std::size_t i) {
  for (JsonNesting nesting; i < text.size(); ++i) {
    const char c = text[i];
    if (!nesting.is_in_string() && nesting.depth() == 0 && (c == ',' || c == ']' || c == '}')) break;
    nesting.take(text, i);
  }
  return std::min(i, text.size());
}

/// The position of a record takes more bytes than a short record, so anything else is refused before there are
/// millions.
bool may_be_object(std::string_view record) {
  const std::size_t begin = record.find_first_not_of(blank);
  return begin != std::string_view::npos && record[begin] == '{';
}

/// The line breaks within the object that `text` starts with; npos if it is not closed.
std::size_t breaks_within_object(std::string_view text) {
  JsonNesting nesting;
  std::size_t breaks = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n') {
      if (nesting.is_in_string()) return std::string_view::npos;
      ++breaks;
    }
    const bool may_close = text[i] == '}' || text[i] == ']';
    nesting.take(text, i);
    if (may_close && nesting.depth() == 0) return breaks;
  }
  return std::string_view::npos;
}

/// The word or the quote at `at` that other languages read as a value, with what JSON writes for it; else "".
std::string foreign_value(std::string_view text, std::size_t at) {
  const auto is_letter = [&](std::size_t i) {
    return i < text.size() && std::isalpha(static_cast<unsigned char>(text[i]));
  };
  if (at < text.size() && text[at] == '\'') return "JSON writes strings in double quotes";
  std::size_t begin = std::min(at, text.size()), end = begin;
  while (begin > 0 && is_letter(begin - 1)) --begin;
  while (is_letter(end)) ++end;
  const std::string written(text.substr(begin, end - begin));
  std::string word = written;
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
  if (word == "nan" || word == "infinity" || word == "inf")
    return "JSON has no NaN or infinity; write null or a number";
  if (word == "none") return "JSON writes None as null";
  if (word != written && (word == "true" || word == "false")) return "JSON writes true and false in lower case";
  return "";
}

}  // namespace

void check_data_file(const std::string& path) {
  const std::filesystem::path file(path);
  const std::string name = printable(path, 1000);
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) throw InputError(name + ": is a folder; name the data files in it");
  if (file.extension() != ".json" && file.extension() != ".jsonl")
    throw InputError(name + ": data must be a .json or .jsonl file");
  if (!std::filesystem::is_regular_file(file, error))
    throw InputError(name + ": there is no such data file" + shell_hint(path));
  const auto size = std::filesystem::file_size(file, error);
  if (!error && size > max_file_bytes)
    throw InputError(name + ": has " + format_bytes(size) + ", but a data file can have " +
                     format_bytes(max_file_bytes) + "; split it and list the parts");
}

RecordFile::RecordFile(const std::string& path) : name_(printable(path, 1000)), text_(read_file(path)) {
  refuse_encoding();
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

/// Throws for UTF-16 and UTF-32, which have a byte order mark or a NUL byte in one of the first two characters.
void RecordFile::refuse_encoding() const {
  const std::string_view head = std::string_view(text_).substr(0, 8);
  const bool is_wide = head.starts_with("\xFF\xFE") || head.starts_with("\xFE\xFF") ||
                       (head.size() >= 2 && (head[0] == '\0' || head[1] == '\0'));
  if (is_wide)
    throw InputError(name_ +
                     ": looks like UTF-16 or UTF-32, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW");
}

/// Throws if one of the first `count` lines starts an object that ends in a later one, as pretty-printed JSON does.
void RecordFile::refuse_spread_object(std::size_t count) const {
  constexpr std::size_t max_wrapper = std::size_t{64} << 20;
  for (const Raw& raw : std::span(records_).first(count)) {
    const auto offset = static_cast<std::size_t>(raw.text.data() - text_.data());
    const std::string_view text = std::string_view(text_).substr(text_.find_first_not_of(blank, offset));
    const std::size_t breaks = may_be_object(raw.text) ? breaks_within_object(text) : std::string_view::npos;
    if (breaks == 0) continue;
    if (breaks == std::string_view::npos) return;
    if (text.size() <= max_wrapper) try {
        refuse_list_of_records(read_ordered_json(text, name_, max_depth), name_ + ":" + std::to_string(raw.line));
      } catch (const JsonSyntaxError&) {  // several objects
      }
    fail(raw.line,
         "the object that starts here spans several lines; write each record in one line, or all of them as one "
         "array: [ … ]");
  }
}

void RecordFile::fail_syntax(std::size_t index, std::size_t at, bool is_number) const {
  const Raw& raw = records_[index];
  if (text_[text_.find_first_not_of(blank)] != '[') {
    if (text_.find('\n') == std::string::npos && raw.text.find('\r') != std::string_view::npos)
      throw InputError(name_ + ": its lines end in CR alone; convert it: tr '\\r' '\\n' < OLD > NEW");
    refuse_spread_object(index + 1);
  }
  const std::size_t bad = text::find_bad_utf8(raw.text);
  if (bad != std::string::npos) at = bad;
  const std::string_view before = raw.text.substr(0, at);
  const std::size_t newline = before.rfind('\n');
  const std::string column = std::to_string(newline == std::string_view::npos ? at + 1 : at - newline);
  const int64_t line = raw.line + std::count(before.begin(), before.end(), '\n');
  if (bad != std::string::npos)
    fail(line, "not UTF-8 (at column " + column +
                   "); if it is Windows-1252 or Latin-1, convert it: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW");
  std::string reason = is_number ? "the number is out of range" : foreign_value(raw.text, at);
  if (reason.empty() && at < raw.text.size() && raw.text[at] == '\0') reason = "there is a NUL byte";
  if (reason.empty()) reason = "a data file holds one object per line, or one array of objects";
  fail(line, "not JSON (at column " + column + "); " + reason);
}

Json RecordFile::parse(std::size_t index) const {
  const Raw& raw = records_.at(index);
  Json value;
  try {
    value = read_ordered_json(raw.text, where(index), max_depth);
  } catch (const JsonSyntaxError& error) {  // its text quotes the file, which messages must not
    fail_syntax(index, std::min(raw.text.size(), error.position > 0 ? error.position - 1 : 0), error.number);
  }
  if (!value.is_object()) fail(raw.line, std::string("must be an object, is ") + value.type_name());
  return value;
}

}  // namespace peft::data
