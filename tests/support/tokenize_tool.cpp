// Tokenizes and renders for tests/parity/test_tokenizer.py and test_chat_template.py. Reads one JSON request per line
// from stdin and writes one JSON answer per line. The first line selects the tokenizer or template: {"tokenizer":
// path},
// {"gguf_metadata": path} or {"template": …, "bos": …, "eos": …}.
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/pretrained/gguf/vocabulary.h"
#include "peft/text/chat_template/chat_template.h"
#include "peft/text/tokenizer/tokenizer.h"

namespace {

using nlohmann::json;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw peft::InputError("cannot open " + path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

json tokenize(const peft::Tokenizer& tokenizer, const json& request) {
  const auto text = request.at("text").get<std::string>();
  const std::vector<int64_t> plain = tokenizer.encode(text, false);
  const std::vector<int64_t> special = tokenizer.encode(text, true);
  return {{"plain", plain},
          {"special", special},
          {"decoded", tokenizer.decode(special, false)},
          {"skipped", tokenizer.decode(special, true)}};
}

json render(const peft::ChatTemplate& chat_template, const json& request) {
  std::vector<peft::Message> messages;
  for (const json& message : request.at("messages"))
    messages.push_back({message.at("role").get<std::string>(), message.at("content").get<std::string>()});
  try {
    return {{"text", chat_template.render(messages, request.at("add_generation_prompt").get<bool>())}};
  } catch (const peft::InputError& error) {
    return {{"error", error.what()}};
  }
}

int run() {
  std::string line;
  std::getline(std::cin, line);
  const json first = json::parse(line);
  std::shared_ptr<const peft::Tokenizer> tokenizer;
  std::shared_ptr<const peft::ChatTemplate> chat_template;
  if (first.contains("template")) {
    chat_template = peft::ChatTemplate::parse(first["template"], first["bos"], first["eos"]);
  } else {
    const bool gguf = first.contains("gguf_metadata");
    const std::string path = first[gguf ? "gguf_metadata" : "tokenizer"];
    std::string text = read_file(path);
    if (gguf) text = peft::tokenizer_json_from_gguf(json::parse(text), path);
    tokenizer = peft::Tokenizer::from_json(text, path);
    if (gguf) std::cout << json(text).dump() << "\n";
  }
  while (std::getline(std::cin, line)) {
    const json request = json::parse(line);
    std::cout << (tokenizer ? tokenize(*tokenizer, request) : render(*chat_template, request)).dump() << "\n";
  }
  return 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
