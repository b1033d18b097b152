// Prepares data for tests/parity. Reads one line of JSON from stdin:
//   {"model": PATH, "files": [PATH, ...], "format": NAME, "max_length": N}
// Writes one line: [{"ids": [...], "labels": [...], "source": "file:line"}, ...]
// With "batch_size" and "seed" (for tests/benchmark): {"examples": as above, "epoch": batches of the first epoch, as
// indices}
#include <iostream>
#include <nlohmann/json.hpp>

#include "peft/data/dataset.h"
#include "peft/data/sampler.h"
#include "peft/files/pretrained_model.h"
#include "peft/pretrained/open.h"

using namespace peft;

int main() {
  std::string line;
  std::getline(std::cin, line);
  try {
    const auto request = nlohmann::json::parse(line);
    DataOptions options;
    options.format = request.at("format");
    options.max_length = request.at("max_length");
    const TextPipeline text = load_text(*open_pretrained(request.at("model")));
    auto out = nlohmann::json::array();
    const Dataset data = load_dataset(request.at("files"), options, text);
    for (const Example& example : data.examples)
      out.push_back({{"ids", example.ids}, {"labels", example.labels}, {"source", data.source(example)}});
    if (request.contains("batch_size"))
      out = {
          {"examples", out},
          {"epoch", epoch_batches(data, request.at("batch_size"), false, options.max_length, request.at("seed"), 0)}};
    std::cout << out.dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
