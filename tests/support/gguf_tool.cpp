// Lets tests/parity/test_gguf.py compare with Python: `gguf_tool FILE` opens a GGUF file and writes one line of JSON
// (what the PretrainedModel says, load_text included), then every tensor as fp32, one after the other.
// `gguf_tool FILE --time` writes the seconds that opening and reading all tensors took instead.
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "peft/pretrained/open.h"
#include "peft/text/text.h"

namespace {

using nlohmann::json;

int64_t elements(const peft::StoredTensor& tensor) {
  int64_t product = 1;
  for (const int64_t size : tensor.shape) product *= size;
  return product;
}

json describe(const peft::PretrainedModel& checkpoint) {
  json tensors = json::array();
  for (const peft::StoredTensor& tensor : checkpoint.tensors())
    tensors.push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"direct", checkpoint.is_direct(tensor)}});
  json out = {{"config", checkpoint.config()},
              {"tokenizer_config", checkpoint.tokenizer_config()},
              {"generation_config", checkpoint.generation_config()},
              {"tensors", tensors}};
  if (!checkpoint.tokenizer_config().contains("chat_template")) return out;
  const peft::TextPipeline text = peft::load_text(checkpoint);
  out["eos_ids"] = text.eos_ids;
  out["rendered"] = text.chat_template->render({{"user", "Hello, 1 2!"}}, true);
  out["ids"] = text.tokenizer->encode(out["rendered"].get<std::string>(), false);
  return out;
}

void write_all(const peft::PretrainedModel& checkpoint) {
  std::cout << describe(checkpoint).dump() << "\n";
  std::vector<float> values;
  for (const peft::StoredTensor& tensor : checkpoint.tensors()) {
    values.resize(static_cast<std::size_t>(elements(tensor)));
    checkpoint.read(tensor, values.data());
    std::cout.write(reinterpret_cast<const char*>(values.data()),
                    static_cast<std::streamsize>(values.size() * sizeof values[0]));
  }
}

void time_all(const std::string& path) {
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  const auto checkpoint = peft::open_pretrained(path);
  const double opened = seconds();
  int64_t total = 0;
  for (const peft::StoredTensor& tensor : checkpoint->tensors()) {
    const std::unique_ptr<float[]> values(new float[static_cast<std::size_t>(elements(tensor))]);
    checkpoint->read(tensor, values.get());
    total += elements(tensor);
  }
  std::cout << json{{"open", opened}, {"read", seconds() - opened}, {"elements", total}}.dump() << "\n";
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count == 3 && std::string(arguments[2]) == "--time")
      time_all(arguments[1]);
    else
      write_all(*peft::open_pretrained(arguments[1]));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
