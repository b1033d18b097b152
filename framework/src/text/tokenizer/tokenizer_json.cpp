#include "text/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "peft/files/json.h"

namespace peft::text {

nlohmann::json parse_tokenizer_json(const std::string& text, const std::string& name) {
  return parse_json(text, name, /*max_depth=*/64);
}

}  // namespace peft::text
