#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/values.h"

namespace peft::data {

/// Throws InputError unless `path` can be a data file: its name, kind and size. Reads nothing.
void check_data_file(const std::string& path);

/// A data file in memory, split into records that are not parsed yet.
class RecordFile {
 public:
  /// Throws InputError for a file that cannot be read, or that is neither an array nor lines.
  explicit RecordFile(const std::string& path);
  RecordFile(const RecordFile&) = delete;

  std::size_t size() const { return records_.size(); }
  /// "file:line" of the record's first character.
  std::string where(std::size_t index) const;
  int64_t line(std::size_t index) const { return records_.at(index).line; }
  /// The record, an object. Throws InputError with file and line.
  Json parse(std::size_t index) const;
  const std::string& name() const { return name_; }

 private:
  struct Raw {
    std::string_view text;
    int64_t line;
  };
  void add(std::string_view record, int64_t line);
  void split_lines();
  void split_array(std::size_t begin);
  [[noreturn]] void fail(int64_t line, const std::string& message) const;
  [[noreturn]] void fail_syntax(std::size_t index, std::size_t at, bool is_number) const;
  void refuse_encoding() const;
  void refuse_spread_object(std::size_t count) const;

  std::string name_, text_;
  std::vector<Raw> records_;
};

}  // namespace peft::data
