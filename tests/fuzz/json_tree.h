#pragma once
// JSON as a tree that can also represent invalid JSON: duplicate keys, numbers out of range, malformed strings.

#include <optional>
#include <string>
#include <vector>

#include "random.h"

namespace peft::fuzz {

struct JsonNode {
  enum class Kind { scalar, array, object } kind = Kind::scalar;
  std::string text;  ///< of a scalar, verbatim
  std::string key;   ///< in an object, verbatim with its quotes
  std::vector<JsonNode> children;
};

/// Returns nullopt for other text, and for more than 100 levels.
std::optional<JsonNode> parse_tree(const std::string& text);
std::string write_tree(const JsonNode& root);
/// The root and all its descendants.
std::vector<JsonNode*> all_nodes(JsonNode& root);

/// Changes a node: sets, renames, wraps, deletes, duplicates or moves it, or replaces it by one of `other`.
void mutate_tree(JsonNode& root, const std::string& other, Random& random);
/// Mutates the tree of a text. Mutates its bytes if it has no tree, and sometimes if it has one.
std::string mutate_json(const std::string& text, const std::string& other, Random& random);

}  // namespace peft::fuzz
