// What tests/parity asks of optimizers, schedulers, clippings and loss scaling. One JSON line in, one out:
//   {"kind": "scheduler", "name", "options": TOML, "total", "base_lr"}             → [lr of each step]
//     "losses": [number or null]: what is observed after each step
//   {"kind": "optimizer", "name", "options", "start": [[...]], "gradients": [[[...] or null] of each step]}
//                                                                                  → [[[...]] after each step]
//     "shapes": [[...]] of the parameters; "dtype": "float32"; "rates": [factor of lr in each step];
//     "sampled": [[[...]]] and "tokens": the gradients shown where the optimizer wants sampled ones, one after the
//     other; "eval": true: what is to be evaluated after each step, not what trains
//   {"kind": "clipping", "name", "options", "parameters", "steps": [[[...], ...]]}  → [{"norm", "gradients"} of each]
//     "groups": [parameters of each group]
//   {"kind": "precision", "name", "options", "gradients": [[...] of each step]}     → [{"ready", "scale", "gradient"}
//   of each step], in fp32
// Else in fp64, so that only a different rule makes a difference.
#include <torch/types.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "plugins/load.h"

using namespace peft;
using nlohmann::json;

namespace {

Tensor tensor(const json& values) { return torch::tensor(values.get<std::vector<double>>(), torch::kDouble); }

std::vector<double> values(const Tensor& tensor) {
  const Tensor flat = tensor.detach().to(torch::kDouble).contiguous().flatten();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

json rates(const json& request) {
  const auto scheduler = test::load<Scheduler>(request.at("name"), request.at("options"));
  const json losses = request.value("losses", json::array());
  json out = json::array();
  const int64_t total = request.at("total");
  for (int64_t step = 0; step < total; ++step) {
    out.push_back(scheduler->lr(step, total, request.at("base_lr")));
    if (const auto at = static_cast<std::size_t>(step); at < losses.size() && !losses[at].is_null())
      scheduler->on_evaluation(losses[at]);
  }
  return out;
}

/// The parameters of an optimizer request, and their gradients.
class Trained {
 public:
  explicit Trained(const json& request) : request_(request) {
    for (const json& start : request.at("start"))
      parameters.emplace_back(std::to_string(parameters.size()), shaped(start, parameters.size()).requires_grad_());
  }
  void set_gradients(const json& gradients) {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (!gradients[i].is_null()) Tensor(parameters[i].second).mutable_grad() = shaped(gradients[i], i);
  }
  json now() const {
    json all = json::array();
    for (const auto& [name, parameter] : parameters) all.push_back(values(parameter));
    return all;
  }
  NamedTensors parameters;

 private:
  Tensor shaped(const json& flat, std::size_t i) const {
    Tensor out = tensor(flat).to(request_.value("dtype", "") == "float32" ? torch::kFloat : torch::kDouble);
    return request_.contains("shapes") ? out.view(request_.at("shapes")[i].get<std::vector<int64_t>>()) : out;
  }
  const json& request_;
};

json steps(const json& request) {
  const auto optimizer = test::load<Optimizer>(request.at("name"), request.at("options"));
  Trained trained(request);
  ParamGroup group;
  group.parameters = trained.parameters;
  optimizer->add_param_group(std::move(group));
  json out = json::array();
  std::size_t shown = 0;
  for (const json& gradients : request.at("gradients")) {
    ParamGroup& all = optimizer->groups().front();
    all.lr = *all.initial_lr * (request.contains("rates") ? request.at("rates")[out.size()].get<double>() : 1);
    if (optimizer->needs_sampled_label_gradients()) {
      trained.set_gradients(request.at("sampled").at(shown++));
      optimizer->on_sampled_label_gradients(request.at("tokens"));
      optimizer->zero_grad();
    }
    trained.set_gradients(gradients);
    optimizer->step();
    optimizer->zero_grad();
    if (request.value("eval", false)) optimizer->eval();
    out.push_back(trained.now());
    optimizer->train();
  }
  return out;
}

std::vector<Tensor> matrices(const json& all) {
  std::vector<Tensor> out;
  for (const json& rows : all) {
    std::vector<Tensor> parts;
    for (const json& row : rows) parts.push_back(tensor(row));
    out.push_back(torch::stack(parts));
  }
  return out;
}

json clipped(const json& request) {
  const auto clipping = test::load<GradientClipping>(request.at("name"), request.at("options"));
  const std::vector<Tensor> parameters = matrices(request.at("parameters"));
  std::vector<ParamGroup> groups;
  std::vector<std::size_t> all(parameters.size());
  std::iota(all.begin(), all.end(), 0);
  for (const json& members : request.value("groups", json::array({all}))) {
    groups.emplace_back();
    for (const std::size_t i : members) groups.back().parameters.emplace_back(std::to_string(i), parameters.at(i));
  }
  json out = json::array();
  for (const json& step : request.at("steps")) {
    const std::vector<Tensor> gradients = matrices(step);
    for (std::size_t i = 0; i < parameters.size(); ++i) Tensor(parameters[i]).mutable_grad() = gradients[i];
    json after = {{"norm", clipping->clip(groups)}, {"gradients", json::array()}};
    for (const Tensor& parameter : parameters) after["gradients"].push_back(values(parameter.grad()));
    out.push_back(after);
  }
  return out;
}

/// The loss is the parameter times the gradient that a step is to have.
json scaled(const json& request) {
  const auto precision = test::load<Precision>(request.at("name"), request.at("options"));
  json out = json::array();
  for (const json& gradient : request.at("gradients")) {
    const Tensor factor = tensor(gradient).to(torch::kFloat), parameter = torch::ones_like(factor).requires_grad_();
    precision->backward((parameter * factor).sum());
    const bool ready = precision->unscale_gradients({parameter});
    out.push_back({{"ready", ready},
                   {"scale", precision->state_dict().at("scale").item<double>()},
                   {"gradient", values(parameter.grad().to(torch::kDouble))}});
  }
  return out;
}

json answer(const json& request) {
  const std::string kind = request.at("kind");
  if (kind == "scheduler") return rates(request);
  if (kind == "optimizer") return steps(request);
  if (kind == "clipping") return clipped(request);
  return scaled(request);
}

}  // namespace

int main() {
  std::string line;
  std::getline(std::cin, line);
  try {
    std::cout << answer(json::parse(line)).dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
