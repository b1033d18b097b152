#include "text/fields.h"

#include <algorithm>

#include "peft/error.h"

namespace peft::text {

namespace {

using nlohmann::json;

constexpr std::size_t max_depth = 64;

/// Builds the document and refuses what nlohmann's own parser lets through: deep nesting and double keys.
class Builder : public nlohmann::json_sax<json> {
 public:
  Builder(json& root, const std::string& name) : root_(root), name_(name) {}

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
    auto [place, added] = stack_.back()->get_ref<json::object_t&>().try_emplace(value);
    if (!added) throw InputError(name_ + ": the key '" + printable(value) + "' stands twice in one object");
    slot_ = &place->second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception& error) override {
    throw InputError(name_ + ": not valid JSON at byte " + std::to_string(position) + ": " + printable(error.what()));
  }

 private:
  json* place(json&& value) {
    if (stack_.empty()) return &(root_ = std::move(value));
    if (stack_.back()->is_object()) return &(*slot_ = std::move(value));
    auto& items = stack_.back()->get_ref<json::array_t&>();
    items.push_back(std::move(value));
    return &items.back();
  }
  bool add(json&& value) {
    place(std::move(value));
    return true;
  }
  bool open(json&& value) {
    if (stack_.size() == max_depth)
      throw InputError(name_ + ": JSON nested deeper than " + std::to_string(max_depth) + " levels");
    stack_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  json& root_;
  const std::string& name_;
  std::vector<json*> stack_;
  json* slot_ = nullptr;
};

}  // namespace

json parse_json(const std::string& text, const std::string& name) {
  json root;
  Builder builder(root, name);
  json::sax_parse(text, &builder);
  return root;
}

Fields::Fields(const json& object, std::string where) : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) throw InputError(where_ + " must be an object");
}

void Fields::fail(const std::string& message) const { throw InputError(where_ + ": " + message); }

bool Fields::has(const char* key) const {
  const auto found = object_->find(key);
  return found != object_->end() && !found->is_null();
}

const json& Fields::need(const char* key) const {
  if (!has(key)) fail("'" + std::string(key) + "' is missing");
  return *object_->find(key);
}

std::string Fields::text(const char* key) const {
  const json& value = need(key);
  if (!value.is_string()) fail("'" + std::string(key) + "' must be a string");
  return value.get<std::string>();
}

std::string Fields::text(const char* key, const std::string& otherwise) const {
  return has(key) ? text(key) : otherwise;
}

bool Fields::flag(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  const json& value = need(key);
  if (!value.is_boolean()) fail("'" + std::string(key) + "' must be true or false");
  return value.get<bool>();
}

int64_t Fields::integer(const char* key) const {
  const json& value = need(key);
  if (!value.is_number_integer()) fail("'" + std::string(key) + "' must be an integer");
  return value.get<int64_t>();
}

const json& Fields::array(const char* key) const {
  const json& value = need(key);
  if (!value.is_array()) fail("'" + std::string(key) + "' must be an array");
  return value;
}

const json& Fields::object(const char* key) const {
  const json& value = need(key);
  if (!value.is_object()) fail("'" + std::string(key) + "' must be an object");
  return value;
}

Fields Fields::at(const char* key) const { return {object(key), where_ + "." + key}; }

std::vector<Fields> Fields::each(const char* key) const {
  std::vector<Fields> all;
  for (const json& item : array(key))
    all.emplace_back(item, where_ + "." + key + "[" + std::to_string(all.size()) + "]");
  return all;
}

void Fields::only(std::initializer_list<const char*> keys) const {
  for (const auto& item : object_->items()) {
    const auto same = [&](const char* key) { return item.key() == key; };
    if (std::none_of(keys.begin(), keys.end(), same)) fail("option '" + printable(item.key()) + "' is not implemented");
  }
}

}  // namespace peft::text
