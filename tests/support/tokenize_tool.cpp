// Tokenizes and renders for tests/parity/test_tokenizer.py and test_chat_template.py. Reads one JSON request per line
// from stdin and writes one JSON answer per line. The first line selects the tokenizer or template: {"tokenizer":
// path},
// {"gguf_metadata": path}, {"tokenizer_folder": path of a model}, {"template": …, "bos": …, "eos": …}, or {"templates":
// true}, where each request has a template of its own.
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "peft/pretrained/gguf/vocabulary.h"
#include "peft/text/chat_template/chat_template.h"
#include "peft/text/text.h"
#include "peft/text/tokenizer/tokenizer.h"
#include "pretrained/tokenizer_files.h"

namespace {

using nlohmann::json;

/// A model's folder without its weights.
class TokenizerFolder : public peft::PretrainedModel {
 public:
  explicit TokenizerFolder(const std::string& path)
      : path_(path),
        tokenizer_config_(peft::read_tokenizer_config(path)),
        generation_config_(peft::read_optional_object(path + "/generation_config.json")) {}
  const std::string& path() const override { return path_; }
  const json& config() const override { return config_; }
  std::string tokenizer_json() const override { return peft::read_tokenizer_json(path_, tokenizer_config_); }
  std::string tokenizer_bytes() const override { return peft::read_tokenizer_bytes(path_); }
  const json& tokenizer_config() const override { return tokenizer_config_; }
  const json& generation_config() const override { return generation_config_; }
  const std::vector<peft::StoredTensor>& tensors() const override { return tensors_; }
  void read(const peft::StoredTensor&, float*) const override {}
  bool is_direct(const peft::StoredTensor&) const override { return false; }

 private:
  std::string path_;
  json config_ = json::object(), tokenizer_config_, generation_config_;
  std::vector<peft::StoredTensor> tensors_;
};

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

std::shared_ptr<const peft::ChatTemplate> parse_template(const json& request) {
  return peft::ChatTemplate::parse(request.at("template"), {{"bos_token", request.at("bos").get<std::string>()},
                                                            {"eos_token", request.at("eos").get<std::string>()}});
}

/// With the given template, or with that of the request.
json render(const std::shared_ptr<const peft::ChatTemplate>& chat_template, const json& request) {
  std::vector<peft::Message> messages;
  for (const json& message : request.at("messages"))
    messages.push_back({message.at("role").get<std::string>(), message.at("content").get<std::string>()});
  try {
    const auto used = chat_template ? chat_template : request.contains("template") ? parse_template(request) : nullptr;
    if (!used) return {{"error", "no chat template"}};
    return {{"text", used->render(messages, request.at("add_generation_prompt").get<bool>())}};
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
    chat_template = parse_template(first);
  } else if (first.contains("tokenizer_folder")) {
    const peft::TextPipeline text = peft::load_text(TokenizerFolder(first["tokenizer_folder"]));
    tokenizer = text.tokenizer;
    chat_template = text.chat_template;
  } else if (!first.contains("templates")) {
    const bool gguf = first.contains("gguf_metadata");
    const std::string path = first[gguf ? "gguf_metadata" : "tokenizer"];
    std::string text = read_file(path);
    if (gguf) text = peft::tokenizer_json_from_gguf(json::parse(text), path);
    tokenizer = peft::Tokenizer::from_json(text, path);
    if (gguf) std::cout << json(text).dump() << "\n";
  }
  while (std::getline(std::cin, line)) {
    const json request = json::parse(line);
    std::cout << (tokenizer && request.contains("text") ? tokenize(*tokenizer, request)
                                                        : render(chat_template, request))
                     .dump()
              << "\n";
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
