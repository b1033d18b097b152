// What tests/parity asks of the data part. One JSON line in:
//   {"model": PATH, "files": [PATH, ...], "format": NAME, "max_length": N}
// One out: [{"ids": [...], "labels": [...], "source": "file:line"}, ...]
#include <iostream>
#include <nlohmann/json.hpp>

#include "peft/data/dataset.h"
#include "peft/files/checkpoint.h"

using namespace peft;

int main() {
  std::string line;
  std::getline(std::cin, line);
  try {
    const auto request = nlohmann::json::parse(line);
    DataOptions options;
    options.format = request.at("format");
    options.max_length = request.at("max_length");
    const Text text = load_text(*Checkpoint::open(request.at("model")));
    auto out = nlohmann::json::array();
    for (const Example& example : load_dataset(request.at("files"), options, text).examples)
      out.push_back({{"ids", example.ids}, {"labels", example.labels}, {"source", example.source}});
    std::cout << out.dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
