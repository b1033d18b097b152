#include "selfcheck/small_run.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "selfcheck/tiny_model.h"

namespace peft {

SmallRun::SmallRun(torch::Dtype base_dtype, torch::Dtype adapter_dtype)
    : model(test::tiny_model(test::tiny_config(), base_dtype)) {
  for (const char* path : {"model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj", "model.norm"})
    model->find(path)->make_trainable("weight", adapter_dtype);
  auto generator = at::detail::createCPUGenerator(3);
  for (int64_t i = 0; i < 6; ++i) {
    const int64_t tokens = 4 + 3 * i % 11;
    const Tensor ids = torch::randint(model->config().vocab_size, {tokens}, generator, torch::kLong);
    Example example{{ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + tokens}, {}};
    example.labels = example.ids;
    std::fill(example.labels.begin(), example.labels.begin() + 1 + i % 3, ignored_label);
    data.add(std::move(example));
  }
}

std::vector<Tensor> SmallRun::parameters() const {
  std::vector<Tensor> all;
  for (const auto& [name, tensor] : model->trainable()) all.push_back(tensor);
  return all;
}

std::vector<Tensor> SmallRun::take_gradients() const {
  std::vector<Tensor> all;
  for (Tensor& parameter : parameters()) {
    all.push_back(parameter.grad().defined() ? parameter.grad().clone() : Tensor());
    parameter.mutable_grad().reset();
  }
  return all;
}

}  // namespace peft
