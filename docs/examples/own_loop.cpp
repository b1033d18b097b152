// Trains a LoRA with a loop of its own and saves it: own_loop MODEL TRAIN.jsonl ADAPTER_FOLDER [DEVICE]
#include <peft/adapters/hf_files.h>
#include <peft/base/error.h>
#include <peft/data/sampler.h>
#include <peft/files/atomic_directory.h>
#include <peft/models/load.h>
#include <peft/options/document.h>
#include <peft/plugin.h>
#include <peft/plugin/plugins.h>
#include <peft/pretrained/open.h>
#include <peft/runtime/device.h>
#include <peft/runtime/initialize.h>
#include <peft/text/text.h>
#include <peft/train/pass.h>
#include <torch/torch.h>

#include <iostream>

int main(int argc, char** argv) try {
  if (argc < 4) throw peft::ConfigError("usage: own_loop MODEL TRAIN.jsonl ADAPTER_FOLDER [DEVICE]");
  const std::string folder = argv[3];
  peft::initialize_libtorch();
  torch::manual_seed(42);                                                         // of the initial values
  const torch::Device device = peft::choose_device(argc > 4 ? argv[4] : "auto");  // "cpu", "cuda", …
  const auto base = peft::open_pretrained(argv[1]);
  const auto model = peft::load_model(base, torch::kFloat32, device);  // frozen
  const peft::TextPipeline text = peft::load_text(*base);

  auto settings =
      peft::Document::from_text("[adapter]\nr = 16\ntarget_modules = 'all-linear'\n[optimizer]\nlr = 1e-3\n");
  peft::Plugins plugins(peft::Plugins::search_path({}));
  peft::Options adapter_options = settings.table("adapter"), optimizer_options = settings.table("optimizer");
  const auto adapter = plugins.make<peft::Adapter>("lora", adapter_options);
  const auto optimizer = plugins.make<peft::Optimizer>("adamw", optimizer_options);
  settings.finish();  // throws with all mistakes in the settings

  adapter->attach(*model, torch::kFloat32);
  for (const auto& group : adapter->groups(*model)) optimizer->add_param_group(group);
  for (auto& group : optimizer->groups()) group.lr = group.initial_lr.value();  // which add_param_group() has filled in

  model->train();
  const peft::Dataset data = peft::load_dataset({argv[2]}, peft::DataOptions{}, text);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    for (const auto& examples :
         peft::epoch_batches(data, 8, /*packing=*/false, /*max_length=*/512, /*seed=*/42, epoch)) {
      const peft::Batch batch = peft::make_batch(data, examples);
      const peft::Tensor loss = peft::Pass(*model, batch).cross_entropy_sum() / batch.num_target_tokens();
      loss.backward();
      optimizer->step();
      optimizer->zero_grad();
      std::cout << epoch << ' ' << loss.item<float>() << '\n';
    }
  }
  optimizer->eval();  // some optimizers train other weights than they save
  peft::make_folder(folder);
  peft::save_adapter(folder, *adapter, *model);  // as HF PEFT reads it
  std::cout << "saved " << folder << '\n';
} catch (const peft::Error& error) {
  std::cerr << error.what() << '\n';
  return static_cast<int>(error.kind());
}
