// What tests/parity asks of optimizers, schedulers, clippers and loss scaling. One JSON line in, one out:
//   {"kind": "scheduler", "name", "options": TOML, "total", "base_lr"}                      → [lr of each step]
//   {"kind": "optimizer", "name", "options", "start": [[...]], "gradients": [[[...] or null]]} → [[[...]]], after each
//   step
//   {"kind": "clipping", "name", "options", "parameters", "gradients": [[[...], ...]]}       → {"norm", "gradients"}
//   {"kind": "precision", "name", "options", "gradients": [[...] of each step]}               → [{"ready", "scale",
//   "gradient"} of each step], in fp32
// Else in fp64, so that only a different rule makes a difference.
#include <torch/torch.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "plugins/load.h"

using namespace peft;
using nlohmann::json;

namespace {

Tensor tensor(const json& values) { return torch::tensor(values.get<std::vector<double>>(), torch::kDouble); }

std::vector<double> values(const Tensor& tensor) {
  const Tensor flat = tensor.detach().contiguous().flatten();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

json rates(const json& request) {
  const auto scheduler = test::load<Scheduler>(request.at("name"), request.at("options"));
  json out = json::array();
  const int64_t total = request.at("total");
  for (int64_t step = 0; step < total; ++step) out.push_back(scheduler->lr(step, total, request.at("base_lr")));
  return out;
}

json steps(const json& request) {
  const auto optimizer = test::load<Optimizer>(request.at("name"), request.at("options"));
  ParamGroup group;
  for (const json& start : request.at("start"))
    group.parameters.emplace_back(std::to_string(group.parameters.size()), tensor(start).requires_grad_());
  const NamedTensors parameters = group.parameters;
  optimizer->add(std::move(group));
  json out = json::array();
  for (const json& gradients : request.at("gradients")) {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (!gradients[i].is_null()) Tensor(parameters[i].second).mutable_grad() = tensor(gradients[i]);
    optimizer->step();
    optimizer->zero_grad();
    json now = json::array();
    for (const auto& [name, parameter] : parameters) now.push_back(values(parameter));
    out.push_back(now);
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
  const auto clipper = test::load<GradientClipper>(request.at("name"), request.at("options"));
  const std::vector<Tensor> parameters = matrices(request.at("parameters")),
                            gradients = matrices(request.at("gradients"));
  for (std::size_t i = 0; i < parameters.size(); ++i) Tensor(parameters[i]).mutable_grad() = gradients[i];
  json out = {{"norm", clipper->clip(parameters)}, {"gradients", json::array()}};
  for (const Tensor& parameter : parameters) out["gradients"].push_back(values(parameter.grad()));
  return out;
}

/// The loss is the parameter times the gradient that a step is to have.
json scaled(const json& request) {
  const auto precision = test::load<Precision>(request.at("name"), request.at("options"));
  json out = json::array();
  for (const json& gradient : request.at("gradients")) {
    const Tensor factor = tensor(gradient).to(torch::kFloat), parameter = torch::ones_like(factor).requires_grad_();
    precision->backward((parameter * factor).sum());
    const bool ready = precision->ready({parameter});
    out.push_back({{"ready", ready},
                   {"scale", precision->state().at("scale").item<double>()},
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
