#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace peft::text {

/// Parses JSON from outside: not UTF-8, nested deeper than 64 or with a key twice in one object is an InputError.
nlohmann::json parse_json(const std::string& text, const std::string& name);

/// One object of a tokenizer.json and its place in it; every wrong or missing field is an InputError that says where.
class Fields {
 public:
  Fields(const nlohmann::json& object, std::string where);

  /// Present and not null.
  bool has(const std::string& key) const;
  std::string text(const char* key) const;
  std::string text(const char* key, const std::string& otherwise) const;
  bool flag(const char* key, bool otherwise) const;
  int64_t integer(const char* key) const;
  double number(const char* key) const;
  const nlohmann::json& array(const char* key) const;
  const nlohmann::json& object(const std::string& key) const;
  /// The object under `key`, as Fields.
  Fields at(const std::string& key) const;
  /// The objects of the array under `key`, as Fields.
  std::vector<Fields> each(const char* key) const;

  /// Refuses, by name, a key that is not listed: an option that is not implemented would change the tokens.
  void only(std::initializer_list<const char*> keys) const;
  [[noreturn]] void fail(const std::string& message) const;
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& need(const std::string& key) const;

  const nlohmann::json* object_;
  std::string where_;
};

}  // namespace peft::text
