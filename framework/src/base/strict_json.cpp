#include "base/strict_json.h"

#include <utility>
#include <vector>

#include "peft/base/error.h"

namespace peft {

namespace {

using nlohmann::json;

/// A value takes about ten times as much memory as `0,` takes in the file. Real tokenizers have about two million
/// values.
constexpr std::size_t kMaxValues = std::size_t{1} << 23;

/// Builds the document and rejects what nlohmann's parser accepts: deep nesting and duplicate keys.
class Builder : public nlohmann::json_sax<json> {
 public:
  Builder(json& root, const std::string& name, std::size_t max_depth)
      : root_(root), name_(name), max_depth_(max_depth) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& value) override {
    auto [member, added] = stack_.back()->get_ref<json::object_t&>().try_emplace(value);
    if (!added) throw InputError(name_ + ": the key '" + printable(value) + "' appears twice in one object");
    member_ = &member->second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception& error) override {
    const bool number = dynamic_cast<const json::out_of_range*>(&error) != nullptr;
    throw JsonSyntaxError{position, error.what(), number};
  }

 private:
  json* insert(json&& value) {
    if (++values_ > kMaxValues)
      throw InputError(name_ + ": JSON with more than " + std::to_string(kMaxValues) + " values");
    if (stack_.empty()) return &(root_ = std::move(value));
    if (stack_.back()->is_object()) return &(*member_ = std::move(value));
    auto& items = stack_.back()->get_ref<json::array_t&>();
    items.push_back(std::move(value));
    return &items.back();
  }
  bool add(json&& value) {
    insert(std::move(value));
    return true;
  }
  bool open(json&& value) {
    if (stack_.size() == max_depth_)
      throw InputError(name_ + ": JSON nested deeper than " + std::to_string(max_depth_) + " levels");
    stack_.push_back(insert(std::move(value)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  json& root_;
  const std::string& name_;
  std::size_t max_depth_, values_ = 0;
  std::vector<json*> stack_;
  json* member_ = nullptr;  ///< of the object on top of the stack; gets the next value
};

}  // namespace

json read_strict_json(std::string_view text, const std::string& name, std::size_t max_depth) {
  // nlohmann's parser treats a NUL byte as the end, whatever follows, and ignores a byte order mark.
  if (const std::size_t nul = text.find('\0'); nul != text.npos) throw JsonSyntaxError{nul + 1, "a NUL byte", false};
  if (text.starts_with("\xEF\xBB\xBF"))
    throw InputError(name + ": starts with a byte order mark, which is not allowed in JSON");
  json root;
  Builder builder(root, name, max_depth);
  json::sax_parse(text.begin(), text.end(), &builder);
  return root;
}

}  // namespace peft
