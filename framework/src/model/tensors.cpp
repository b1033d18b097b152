#include "peft/tensors.h"

#include <torch/torch.h>

#include <sstream>

#include "model/finite.h"
#include "peft/error.h"

namespace peft {

namespace {

constexpr std::size_t kTold = 50;

template <class... Words>
std::string line(const Words&... words) {
  std::ostringstream text;
  text.exceptions(std::ios::badbit);  // what cannot be written must not be taken for no problem
  (text << ... << words);
  return text.str();
}

/// What keeps a tensor from taking the place of another; "" where nothing does.
std::string misfit(const Tensor& wanted, const Tensor& given) {
  if (given.sizes() != wanted.sizes()) return line(" has shape ", given.sizes(), ", expected ", wanted.sizes());
  if (wanted.is_floating_point() && !given.is_floating_point())
    return line(" is of type ", c10::toString(given.scalar_type()), ", expected one of floating point");
  return all_finite(given) ? "" : " holds NaN or infinity";
}

}  // namespace

std::string misfits(const State& wanted, const State& given) {
  std::string told;
  std::size_t count = 0;
  const auto add = [&](const std::string& problem) {
    if (++count <= kTold) told += "\n  " + problem;
  };
  for (const auto& [name, tensor] : wanted) {
    const auto it = given.find(name);
    if (it == given.end())
      add("missing: " + printable(name));
    else if (const std::string problem = misfit(tensor, it->second); !problem.empty())
      add(printable(name) + problem);
  }
  for (const auto& [name, tensor] : given)
    if (!wanted.contains(name)) add("unexpected: " + printable(name));
  return told + (count > kTold ? "\n  … and " + std::to_string(count - kTold) + " more" : "");
}

}  // namespace peft
