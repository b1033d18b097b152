#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace peft::data {

/// An object of a record, read with errors that name file, line and key.
class Values {
 public:
  /// `path` precedes the keys in messages: "messages[2].". All arguments but `path` must outlive the object.
  Values(const nlohmann::json& object, const std::string& where, std::string path)
      : object_(object), where_(where), path_(std::move(path)) {}

  bool has(const std::string& key) const;  ///< there, and not null or empty
  bool is_list(const std::string& key) const;
  std::string text(const std::string& key) const;
  std::string optional_text(const std::string& key) const;  ///< "" if absent or null
  std::string content(const std::string& key) const;        ///< a string, or a list of {"type":"text","text"}
  bool weight() const;                                      ///< OpenAI's `weight` (or `loss_weight`): 0 is false
  std::vector<Values> objects(const std::string& key) const;
  std::vector<std::pair<std::string, std::string>> pairs(const std::string& key) const;  ///< none if absent or null
  const std::string& where() const { return where_; }                                    ///< "file:line"
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;

 private:
  const nlohmann::json& at(const std::string& key) const;

  const nlohmann::json& object_;
  const std::string& where_;
  std::string path_;
};

}  // namespace peft::data
