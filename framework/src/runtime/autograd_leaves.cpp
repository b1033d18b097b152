#include "runtime/autograd_leaves.h"

#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <unordered_set>

namespace peft {

using torch::autograd::AccumulateGrad;
using torch::autograd::Node;

Edge gradient_edge_of(const Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad() ? torch::autograd::impl::gradient_edge(tensor) : Edge();
}

std::vector<Tensor> leaves_between(const std::vector<Edge>& begins, const std::vector<Edge>& ends) {
  std::unordered_set<const Node*> seen;
  for (const Edge& edge : begins) seen.insert(edge.function.get());
  std::vector<Tensor> leaves;
  std::vector<const Node*> open;
  const auto visit = [&](const Edge& edge) {
    if (edge.is_valid() && seen.insert(edge.function.get()).second) open.push_back(edge.function.get());
  };
  for (const Edge& edge : ends) visit(edge);
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (const auto* leaf = dynamic_cast<const AccumulateGrad*>(node)) {
      if (leaf->variable.numel() > 0) leaves.push_back(leaf->variable);
    }
    for (const Edge& edge : node->next_edges()) visit(edge);
  }
  return leaves;
}

}  // namespace peft
