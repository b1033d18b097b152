#pragma once
// JSON as a tree that may also say what no JSON does: keys twice, numbers out of range, broken strings.

#include <optional>
#include <string>
#include <vector>

#include "random.h"

namespace peft::fuzz {

struct JsonNode {
  enum class Kind { scalar, array, object } kind = Kind::scalar;
  std::string text;  ///< a scalar as it stands
  std::string key;   ///< in an object: as it stands, with its quotes
  std::vector<JsonNode> children;
};

/// Nothing for what is not JSON, or nests deeper than 100.
std::optional<JsonNode> parse_tree(const std::string& text);
std::string write_tree(const JsonNode& root);
/// The root and all below it.
std::vector<JsonNode*> all_nodes(JsonNode& root);

/// The nodes change: one is set, renamed, wrapped, dropped, doubled, moved, or taken from `other`.
void mutate_tree(JsonNode& root, const std::string& other, Random& random);
/// A text's tree changed; bytes, where it is no JSON, and sometimes else.
std::string mutate_json(const std::string& text, const std::string& other, Random& random);

}  // namespace peft::fuzz
