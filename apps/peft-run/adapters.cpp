#include "adapters.h"

#include <torch/types.h>

#include <iostream>

#include "peft/adapter_files.h"
#include "peft/error.h"

std::vector<std::unique_ptr<peft::Adapter>> attach_adapters(const peft::StringList& folders, peft::Plugins& plugins,
                                                            peft::Model& model, const peft::Precision& precision,
                                                            bool any_base) {
  std::vector<std::unique_ptr<peft::Adapter>> adapters;
  for (const std::string& folder : folders) {
    auto loaded = peft::load_adapter(folder, plugins, model, precision.adapter_dtype(), any_base);
    if (loaded.base == peft::BaseMatch::unknown)
      std::cerr << "note: " << peft::printable(folder, 4096)
                << " does not say which base it was trained on; names and shapes fit this one\n";
    adapters.push_back(std::move(loaded.adapter));
  }
  return adapters;
}
