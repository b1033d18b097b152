// What tests/parity asks of a model. One JSON line in:
//   {"model": PATH, "precision": NAME, "adapters": [FOLDER, ...], "fused": BOOL, "out": PATH,
//    "examples": [{"ids": [...], "labels": [...]}, ...]}
// The safetensors file `out` gets `logits` [tokens, vocabulary] of the concatenated examples, `loss` (mean over the
// target tokens) and, with one adapter, `grad.KEY`: the loss's gradient for each key of the adapter's file.
#include <torch/types.h>
#include <torch/utils.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "peft/adapters/adapter_vocabulary.h"
#include "peft/adapters/encoder_state.h"
#include "peft/adapters/hf_files.h"
#include "peft/adapters/hf_format.h"
#include "peft/adapters/training_hooks.h"
#include "peft/base/error.h"
#include "peft/models/load.h"
#include "peft/pretrained/open.h"
#include "peft/runtime/memory.h"
#include "peft/runtime/state_dict_file.h"
#include "peft/train/train.h"

using namespace peft;

namespace {

Dataset dataset(const nlohmann::json& examples) {
  Dataset data;
  for (const auto& item : examples) {
    Example example;
    example.ids = item.at("ids").get<std::vector<int64_t>>();
    example.labels = item.at("labels").get<std::vector<int64_t>>();
    data.examples.push_back(std::move(example));
  }
  return data;
}

void answer(const nlohmann::json& request) {
  Plugins plugins(Plugins::search_path({}));
  Options none;
  const auto precision = plugins.make<Precision>(request.at("precision"), none);
  const auto folders = request.at("adapters").get<StringList>();
  const auto files = open_pretrained(request.at("model"));
  const auto base = base_with_vocabulary(files, adapter_tokenizer_changes(*files, folders), folders);
  const auto model = load_model(base, precision->base_dtype(), torch::kCPU);
  std::vector<std::unique_ptr<Adapter>> adapters;
  for (const std::string& folder : folders)
    adapters.push_back(load_adapter(folder, plugins, *model, precision->adapter_dtype()).adapter);
  model->enable_fusion(request.at("fused").get<bool>());
  model->eval();

  const Dataset data = dataset(request.at("examples"));
  std::vector<std::size_t> all(data.examples.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  const Batch batch = make_batch(data, all);
  const PackedTokens input = to_packed_tokens(batch, torch::kCPU);
  StateDict out;
  {
    const torch::NoGradGuard no_grad;
    out["logits"] = model->logits(model->hidden_states(input));
  }
  const auto num_target_tokens = static_cast<double>(batch.num_target_tokens(model->virtual_tokens() > 0));
  const Tensor loss = Pass(*model, batch).cross_entropy_sum() / num_target_tokens;
  out["loss"] = loss.detach();
  if (adapters.size() == 1 && loss.requires_grad()) {  // an encoder of which a file has what it makes does not train
    Adapter& adapter = *adapters.front();
    loss.backward();
    if (TrainingHooks* hooks = adapter.training_hooks()) hooks->after_backward({1, 1});
    StateDict trained = adapter.hf_format().to_hf(*model);
    if (const EncoderState* encoder = adapter.encoder_state()) trained.merge(encoder->encoder_state_dict(*model));
    for (const auto& [key, tensor] : trained)
      if (tensor.grad().defined()) out["grad." + key] = tensor.grad();
  }
  write_state(request.at("out"), out, {});
}

}  // namespace

int main() {
  install_cpu_allocator();
  std::string line;
  std::getline(std::cin, line);
  try {
    answer(nlohmann::json::parse(line));
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
