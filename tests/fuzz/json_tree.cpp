#include "json_tree.h"

#include <algorithm>

#include "bytes.h"

namespace peft::fuzz {

namespace {

using Kind = JsonNode::Kind;

/// Reads text that resembles JSON: a scalar is everything before the next comma or bracket.
class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  std::optional<JsonNode> parse() {
    JsonNode root;
    if (!read_value(root, 0)) return std::nullopt;
    skip_blank();
    return at_ == text_.size() ? std::optional(std::move(root)) : std::nullopt;
  }

 private:
  void skip_blank() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }
  bool take(char c) {
    skip_blank();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool read_string(std::string& out) {
    const std::size_t begin = at_;
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_)
      if (text_[at_] == '\\') ++at_;
    if (at_ >= text_.size()) return false;
    out = text_.substr(begin, ++at_ - begin);
    return true;
  }
  bool read_value(JsonNode& node, int depth) {
    skip_blank();
    if (at_ == text_.size() || depth > 100) return false;
    if (text_[at_] == '{' || text_[at_] == '[') return read_children(node, depth);
    if (text_[at_] == '"') return read_string(node.text);
    const std::size_t end = std::min(text_.find_first_of(",]}: \t\r\n", at_), text_.size());
    node.text = text_.substr(at_, end - at_);
    at_ = end;
    return !node.text.empty();
  }
  bool read_children(JsonNode& node, int depth) {
    const bool object = text_[at_++] == '{';
    node.kind = object ? Kind::object : Kind::array;
    const char close = object ? '}' : ']';
    if (take(close)) return true;
    do {
      JsonNode& child = node.children.emplace_back();
      skip_blank();
      if (object && (at_ == text_.size() || text_[at_] != '"' || !read_string(child.key) || !take(':'))) return false;
      if (!read_value(child, depth + 1)) return false;
    } while (take(','));
    return take(close);
  }

  const std::string& text_;
  std::size_t at_ = 0;
};

void write(const JsonNode& node, std::string& out) {
  if (node.kind == Kind::scalar) {
    out += node.text;
    return;
  }
  out += node.kind == Kind::object ? '{' : '[';
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    if (i > 0) out += ',';
    if (node.kind == Kind::object) out += node.children[i].key + ':';
    write(node.children[i], out);
  }
  out += node.kind == Kind::object ? '}' : ']';
}

void collect(JsonNode& node, std::vector<JsonNode*>& out) {
  out.push_back(&node);
  for (JsonNode& child : node.children) collect(child, out);
}

std::string quoted(const std::string& text) { return '"' + text + '"'; }

JsonNode any_scalar(Random& random) {
  static const char* const words[] = {"null", "true", "false", "[]", "{}", "nul", "\"\"", "0", "1", "-1"};
  JsonNode node;
  switch (random.below(3)) {
    case 0:
      node.text = random.pick(words);
      break;
    case 1:
      node.text = nasty_digits(random, 64);
      break;
    default:
      node.text = quoted(nasty_text(random));
  }
  return node;
}

/// Replaces the value of a node. Its key is unchanged.
void set(JsonNode& node, JsonNode value) {
  value.key = node.key;
  node = std::move(value);
}

/// Wraps the node in `levels` arrays or objects.
void wrap(JsonNode& node, std::size_t levels, Random& random) {
  for (; levels > 0; --levels) {
    JsonNode outer;
    outer.kind = random.one_in(3) ? Kind::object : Kind::array;
    outer.key = node.key;
    node.key = quoted("a");
    outer.children.push_back(std::move(node));
    node = std::move(outer);
  }
}

void change_scalar(JsonNode& node, Random& random) {
  if (node.text.size() < 2 || node.text.front() != '"') return set(node, any_scalar(random));
  std::string inside = node.text.substr(1, node.text.size() - 2);
  inside = random.one_in(3) ? inside + nasty_text(random) : mutate_bytes(inside, inside + "a", random);
  node.text = quoted(inside);
}

/// Deletes, duplicates, repeats or renames a child.
void change_children(JsonNode& node, JsonNode& donor, Random& random) {
  if (node.children.empty()) {
    node.children.push_back(any_scalar(random));
    node.children.back().key = quoted(nasty_text(random));
    return;
  }
  const std::size_t at = random.below(node.children.size());
  const auto child = node.children.begin() + static_cast<std::ptrdiff_t>(at);
  switch (random.below(4)) {
    case 0:
      node.children.erase(child);
      break;
    case 1: {
      JsonNode copy = *child;
      node.children.insert(node.children.begin() + static_cast<std::ptrdiff_t>(random.below(node.children.size())),
                           copy);
      break;
    }
    case 2: {
      const JsonNode copy = *child;
      for (std::size_t copies = random.below(60); copies > 0; --copies) {
        node.children.push_back(copy);
        if (copy.key.size() > 1) node.children.back().key.insert(1, std::to_string(copies));
      }
      break;
    }
    default: {
      const auto names = all_nodes(donor);
      const std::string& name = random.pick(names)->key;
      child->key = name.empty() || random.one_in(4) ? quoted(nasty_text(random)) : name;
    }
  }
}

}  // namespace

std::optional<JsonNode> parse_tree(const std::string& text) { return Parser(text).parse(); }

std::string write_tree(const JsonNode& root) {
  std::string out;
  write(root, out);
  return out;
}

std::vector<JsonNode*> all_nodes(JsonNode& root) {
  std::vector<JsonNode*> all;
  collect(root, all);
  return all;
}

void mutate_tree(JsonNode& root, const std::string& other, Random& random) {
  auto donor = parse_tree(other);
  if (!donor) donor = root;
  const auto nodes = all_nodes(root), others = all_nodes(*donor);
  JsonNode& node = *random.pick(nodes);
  const std::size_t kind = random.below(10);
  if (kind < 2)
    set(node, any_scalar(random));
  else if (kind == 2)
    wrap(node, 1 + random.below(random.one_in(8) ? 120 : 3), random);
  else if (kind == 3)
    set(node, JsonNode(*random.pick(others)));
  else if (kind == 4)
    set(node, JsonNode(*random.pick(nodes)));
  else if (node.kind == Kind::scalar)
    change_scalar(node, random);
  else
    change_children(node, *donor, random);
}

std::string mutate_json(const std::string& text, const std::string& other, Random& random) {
  auto root = random.one_in(10) ? std::nullopt : parse_tree(text);
  if (!root) return mutate_bytes(text, other, random);
  mutate_tree(*root, other, random);
  std::string out = write_tree(*root);
  return out.size() > 1 << 16 ? text : out;
}

}  // namespace peft::fuzz
