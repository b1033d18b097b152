#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace peft {

/// Reads the members of a JSON object. A missing member or one of the wrong type is an InputError that names the object
/// and the key. The object must outlive the reader.
class JsonObjectReader {
 public:
  /// `location` is the object's location in messages, for example "tokenizer.json.model".
  JsonObjectReader(const nlohmann::json& object, std::string location);

  /// True if the member exists and is not null.
  bool has(const std::string& key) const;
  std::string text(const std::string& key) const;
  std::string text(const std::string& key, const std::string& default_value) const;
  bool flag(const std::string& key, bool default_value) const;
  int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;  ///< finite
  double number(const std::string& key, double default_value) const;
  const nlohmann::json& array(const std::string& key) const;
  const nlohmann::json& object(const std::string& key) const;
  /// A reader of the object under `key`.
  JsonObjectReader at(const std::string& key) const;
  /// A reader of each object in the array under `key`.
  std::vector<JsonObjectReader> each(const std::string& key) const;

  /// Throws for a key that is not listed: an unknown option could change the result.
  void allow_only(std::initializer_list<const char*> keys) const;
  /// Throws InputError with the object's location.
  [[noreturn]] void fail(const std::string& message) const;
  const std::string& location() const { return location_; }
  const nlohmann::json& value() const { return *object_; }

 protected:
  /// The member without a check of its type. Throws if it is missing.
  const nlohmann::json& require(const std::string& key) const;

 private:
  const nlohmann::json* object_;
  std::string location_;
};

}  // namespace peft
