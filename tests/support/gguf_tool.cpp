// Reads GGUF files for tests/parity/test_gguf.py. `gguf_tool FILE` writes one line of JSON with the configs, the
// tensors and the result of load_text(), then all tensors as fp32. `gguf_tool FILE --time` writes the seconds for
// opening the file and for reading all tensors instead.
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

json describe(const peft::PretrainedModel& model) {
  json tensors = json::array();
  for (const peft::StoredTensor& tensor : model.tensors())
    tensors.push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"direct", model.is_direct(tensor)}});
  json out = {{"config", model.config()},
              {"tokenizer_config", model.tokenizer_config()},
              {"generation_config", model.generation_config()},
              {"tensors", tensors}};
  if (!model.tokenizer_config().contains("chat_template")) return out;
  const peft::TextPipeline text = peft::load_text(model);
  out["eos_ids"] = text.eos_ids;
  out["rendered"] = text.chat_template->render({{"user", "Hello, 1 2!"}}, true);
  out["ids"] = text.tokenizer->encode(out["rendered"].get<std::string>(), false);
  return out;
}

void write_all(const peft::PretrainedModel& model) {
  std::cout << describe(model).dump() << "\n";
  std::vector<float> values;
  for (const peft::StoredTensor& tensor : model.tensors()) {
    values.resize(static_cast<std::size_t>(elements(tensor)));
    model.read(tensor, values.data());
    std::cout.write(reinterpret_cast<const char*>(values.data()),
                    static_cast<std::streamsize>(values.size() * sizeof values[0]));
  }
}

void time_all(const std::string& path) {
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  const auto model = peft::open_pretrained(path);
  const double opened = seconds();
  int64_t total = 0;
  for (const peft::StoredTensor& tensor : model->tensors()) {
    const std::unique_ptr<float[]> values(new float[static_cast<std::size_t>(elements(tensor))]);
    model->read(tensor, values.get());
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
