#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace peft::data {

/// Keeps the keys of an object in the order of the file, which a chat template may write out.
using Json = nlohmann::ordered_json;

/// An object of a record, read with errors that name file, line and key.
class Values {
 public:
  /// `path` precedes the keys in messages: "messages[2].". All arguments but `path` must outlive the object.
  Values(const Json& object, const std::string& where, std::string path)
      : object_(object), where_(where), path_(std::move(path)) {}

  bool has(const std::string& key) const;      ///< there, and not null or empty
  bool is_null(const std::string& key) const;  ///< or absent
  bool is_list(const std::string& key) const;
  std::string text(const std::string& key) const;
  std::string optional_text(const std::string& key) const;  ///< "" if absent or null
  std::string content(const std::string& key) const;        ///< a string, or a list of {"type":"text","text"}
  std::optional<bool> flag(const std::string& key) const;   ///< true or false, 1 or 0; nothing if absent or null
  std::vector<Values> objects(const std::string& key) const;
  std::vector<std::pair<std::string, std::string>> pairs(const std::string& key) const;  ///< none if absent or null
  const Json& object() const { return object_; }
  const std::string& where() const { return where_; }                     ///< "file:line"
  std::string name(const std::string& key) const { return path_ + key; }  ///< as messages write it
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;

 private:
  const Json& at(const std::string& key) const;

  const Json& object_;
  const std::string& where_;
  std::string path_;
};

}  // namespace peft::data
