#include "text/tokenizer/tokenizer_json.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/files/json.h"

namespace peft::text {

namespace {

std::string name_in(const std::string& model_path, const char* file, const char* part_of_gguf) {
  const std::filesystem::path path(model_path);
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return printable_path(model_path) + ": " + part_of_gguf;
  return printable_path((path / file).string());
}

}  // namespace

nlohmann::json parse_tokenizer_json(const std::string& text, const std::string& name) {
  return parse_json(text, name, /*max_depth=*/64);
}

std::string tokenizer_name(const std::string& model_path) { return name_in(model_path, "tokenizer.json", "tokenizer"); }

std::string tokenizer_config_name(const std::string& model_path) {
  return name_in(model_path, "tokenizer_config.json", "tokenizer_config");
}

}  // namespace peft::text
