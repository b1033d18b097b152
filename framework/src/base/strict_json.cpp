#include "base/strict_json.h"

#include <algorithm>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "peft/base/error.h"

namespace peft {

namespace {

/// A value takes about ten times as much memory as `0,` takes in the file. Real tokenizers have about two million
/// values.
constexpr std::size_t kMaxValues = std::size_t{1} << 23;

/// The keys of an object whose members are in a list, so that a duplicate is found in an object of any size.
class SeenKeys {
 public:
  /// False if `members` has the key.
  template <class Members>
  bool add(const Members& members, const std::string& key) {
    constexpr std::size_t few = 16;
    if (members.size() < few)
      return std::none_of(members.begin(), members.end(), [&](const auto& member) { return member.first == key; });
    if (keys_.empty())
      for (const auto& member : members) keys_.insert(member.first);
    return keys_.insert(key).second;
  }

 private:
  std::unordered_set<std::string> keys_;  ///< empty while there are few
};

/// Builds the document and rejects what nlohmann's parser accepts: deep nesting and duplicate keys.
template <class Json>
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(Json& root, const std::string& name, std::size_t max_depth)
      : root_(root), name_(name), max_depth_(max_depth) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(typename Json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& value) override {
    member_ = add_member(stack_.back()->template get_ref<typename Json::object_t&>(), value);
    if (member_ == nullptr)
      throw InputError(name_ + ": the key '" + printable(value) + "' appears twice in one object");
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    const bool number = dynamic_cast<const typename Json::out_of_range*>(&error) != nullptr;
    throw JsonSyntaxError{position, error.what(), number};
  }

 private:
  /// Null if the object has the key.
  Json* add_member(typename Json::object_t& object, const std::string& key) {
    if constexpr (std::is_same_v<Json, nlohmann::ordered_json>) {
      if (!seen_.back().add(object, key)) return nullptr;
      object.emplace_back(key, nullptr);  // its emplace() searches all members
      return &object.back().second;
    } else {
      const auto [member, added] = object.try_emplace(key);
      return added ? &member->second : nullptr;
    }
  }
  Json* insert(Json&& value) {
    if (++values_ > kMaxValues)
      throw InputError(name_ + ": JSON with more than " + std::to_string(kMaxValues) + " values");
    if (stack_.empty()) return &(root_ = std::move(value));
    if (stack_.back()->is_object()) return &(*member_ = std::move(value));
    auto& items = stack_.back()->template get_ref<typename Json::array_t&>();
    items.push_back(std::move(value));
    return &items.back();
  }
  bool add(Json&& value) {
    insert(std::move(value));
    return true;
  }
  bool open(Json&& value) {
    if (stack_.size() == max_depth_)
      throw InputError(name_ + ": JSON nested deeper than " + std::to_string(max_depth_) + " levels");
    stack_.push_back(insert(std::move(value)));
    seen_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    seen_.pop_back();
    return true;
  }

  Json& root_;
  const std::string& name_;
  std::size_t max_depth_, values_ = 0;
  std::vector<Json*> stack_;
  std::vector<SeenKeys> seen_;  ///< of each object in stack_
  Json* member_ = nullptr;      ///< of the object on top of the stack; gets the next value
};

template <class Json>
Json read(std::string_view text, const std::string& name, std::size_t max_depth) {
  // nlohmann's parser treats a NUL byte as the end, whatever follows, and ignores a byte order mark.
  if (const std::size_t nul = text.find('\0'); nul != text.npos) throw JsonSyntaxError{nul + 1, "a NUL byte", false};
  if (text.starts_with("\xEF\xBB\xBF"))
    throw InputError(name + ": starts with a byte order mark, which is not allowed in JSON");
  Json root;
  Builder<Json> builder(root, name, max_depth);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return root;
}

}  // namespace

nlohmann::json read_strict_json(std::string_view text, const std::string& name, std::size_t max_depth) {
  return read<nlohmann::json>(text, name, max_depth);
}

nlohmann::ordered_json read_ordered_json(std::string_view text, const std::string& name, std::size_t max_depth) {
  return read<nlohmann::ordered_json>(text, name, max_depth);
}

}  // namespace peft
