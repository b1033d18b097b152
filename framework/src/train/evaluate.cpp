#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "peft/train.h"

namespace peft {

Input to_input(const Batch& batch, torch::Device device) {
  const auto tensor = [&](const std::vector<int64_t>& values) {
    return torch::tensor(values, torch::kLong).to(device);
  };
  return {tensor(batch.ids), tensor(batch.positions), batch.starts};
}

Tensor to_labels(const Batch& batch, torch::Device device) {
  return torch::tensor(batch.labels, torch::kLong).to(device);
}

double evaluate(Model& model, Precision& precision, const Dataset& data, int64_t batch_size) {
  const torch::NoGradGuard no_grad;
  model.eval();
  double sum = 0;
  int64_t supervised = 0;
  for (std::size_t at = 0; at < data.examples.size(); at += static_cast<std::size_t>(batch_size)) {
    std::vector<std::size_t> examples(std::min(static_cast<std::size_t>(batch_size), data.examples.size() - at));
    std::iota(examples.begin(), examples.end(), at);
    const Batch batch = make_batch(data, examples);
    const Input input = to_input(batch, model.device());
    const Tensor labels = to_labels(batch, model.device());
    sum += precision.forward([&] { return model.loss_sum(input, labels); }).item<double>();
    supervised += batch.supervised();
  }
  return sum / static_cast<double>(std::max<int64_t>(supervised, 1));
}

}  // namespace peft
