#include "peft/experiment/token_ids.h"

#include <algorithm>

#include "peft/base/error.h"

namespace peft {

void check_token_ids(const std::vector<int64_t>& ids, const Model& model, const std::string& where) {
  const int64_t rows = model.embedding().rows(), largest = ids.empty() ? 0 : *std::max_element(ids.begin(), ids.end());
  if (largest < rows) return;
  throw InputError(where + ": the tokenizer produces the token id " + std::to_string(largest) + ", but the model " +
                   printable_path(model.origin().path) + " has only " + std::to_string(rows) + " embedding rows");
}

void check_token_ids(const Dataset& data, const Model& model) {
  const int64_t rows = model.embedding().rows();
  for (const Example& example : data.examples)
    if (std::any_of(example.ids.begin(), example.ids.end(), [rows](int64_t id) { return id >= rows; }))
      check_token_ids(example.ids, model, data.source(example));
}

}  // namespace peft
