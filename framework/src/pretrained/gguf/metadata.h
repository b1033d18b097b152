#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "pretrained/gguf/file.h"

namespace peft {

/// Typed access to a GGUF's metadata; every wrong value is an InputError that names file and key.
class GgufMetadata {
 public:
  explicit GgufMetadata(const GgufFile& gguf) : values_(gguf.metadata), path_(gguf.file->path()) {}

  bool has(const std::string& key) const { return values_.contains(key); }
  /// From `least` to 2^31 - 1.
  int64_t integer(const std::string& key, int64_t least) const;
  int64_t integer(const std::string& key, int64_t least, int64_t otherwise) const;
  /// Finite.
  double number(const std::string& key) const;
  double number(const std::string& key, double otherwise) const;
  std::string text(const std::string& key) const;
  std::string text(const std::string& key, const std::string& otherwise) const;
  const nlohmann::json& array(const std::string& key) const;

  const nlohmann::json& values() const { return values_; }
  [[noreturn]] void fail(const std::string& message) const;

 private:
  const nlohmann::json& need(const std::string& key) const;

  const nlohmann::json& values_;
  const std::string& path_;
};

}  // namespace peft
