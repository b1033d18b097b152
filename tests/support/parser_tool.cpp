// Runs the file readers for tests/parity/test_readers_agree.py. Reads one JSON request per line from stdin and writes
// one JSON answer per line, {"value": …} or {"error": message}.
//   {"json": TEXT}                             the value
//   {"toml": TEXT}                             the tables
//   {"safetensors": PATH}                      {"metadata": {…}, "tensors": {NAME: [StoredType, shape, begin, bytes in
//   hex]}}
//   {"tokenizer": TEXT, "texts": [TEXT, …]}    the ids of each text; null if it is refused
// The contents of a file (json, toml, tokenizer) are given in hexadecimal digits, because they may not be UTF-8.
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "options/value.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"
#include "peft/text/tokenizer/tokenizer.h"

namespace {

using namespace peft;
using nlohmann::json;

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2)
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

std::string to_hex(const std::byte* data, uint64_t size) {
  std::string digits;
  for (uint64_t i = 0; i < size; ++i)
    for (const int shift : {4, 0}) digits += "0123456789abcdef"[std::to_integer<int>(data[i]) >> shift & 15];
  return digits;
}

/// NaN and infinities, which JSON does not have, become strings.
json value_of(const detail::Value& value) {
  if (const auto* entries = std::get_if<detail::Entries>(&value.data)) {
    json out = json::object();
    for (const detail::Entry& entry : *entries) out[entry.key] = value_of(entry.value);
    return out;
  }
  if (const auto* values = std::get_if<detail::ValueList>(&value.data)) {
    json out = json::array();
    for (const detail::Value& element : *values) out.push_back(value_of(element));
    return out;
  }
  if (const auto* number = std::get_if<double>(&value.data)) {
    if (std::isfinite(*number)) return *number;
    return std::isnan(*number) ? "nan" : *number > 0 ? "inf" : "-inf";
  }
  if (const auto* flag = std::get_if<bool>(&value.data)) return *flag;
  if (const auto* integer = std::get_if<int64_t>(&value.data)) return *integer;
  if (const auto* text = std::get_if<std::string>(&value.data)) return *text;
  return "a date or time";
}

json read_toml(const std::string& text) {
  const auto source = std::make_shared<detail::Source>(detail::Source{"INPUT", {}});
  detail::Value root;
  root.data = detail::parse_toml(text, source);
  return value_of(root);
}

json read_safetensors(const std::string& path) {
  const auto file = SafetensorsFile::open(path);
  json tensors = json::object();
  const std::byte* first = file->tensors().empty() ? nullptr : file->tensors().front().data;
  for (const StoredTensor& tensor : file->tensors())
    tensors[tensor.name] = {static_cast<int>(tensor.type), tensor.shape, tensor.data - first,
                            to_hex(tensor.data, tensor.size)};
  return {{"metadata", file->metadata()}, {"tensors", tensors}};
}

json read_tokenizer(const std::string& text, const json& texts) {
  const auto tokenizer = Tokenizer::from_json(text, "INPUT");
  json out = json::array();
  for (const std::string sample : texts) try {
      out.push_back(tokenizer->encode(sample, true));
    } catch (const InputError&) {
      out.push_back(nullptr);
    }
  return out;
}

json answer(const json& request) {
  if (request.contains("json")) return parse_json(from_hex(request["json"]), "INPUT");
  if (request.contains("toml")) return read_toml(from_hex(request["toml"]));
  if (request.contains("safetensors")) return read_safetensors(request["safetensors"]);
  return read_tokenizer(from_hex(request["tokenizer"]), request.at("texts"));
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    json out;
    try {
      out["value"] = answer(json::parse(line));
    } catch (const Error& error) {  // any other exception ends the program and fails the test
      out = {{"error", error.what()}};
    }
    std::cout << out.dump() << "\n" << std::flush;
  }
}
