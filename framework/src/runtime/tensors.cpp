#include "peft/runtime/tensors.h"

#include <torch/torch.h>

#include <sstream>

#include "base/first_lines.h"
#include "peft/base/error.h"
#include "runtime/finite.h"

namespace peft {

namespace {

template <class... Words>
std::string line(const Words&... words) {
  std::ostringstream text;
  text.exceptions(std::ios::badbit);  // an empty text would mean that there is no problem
  (text << ... << words);
  return text.str();
}

/// Why a tensor cannot replace another one; "" if it can.
std::string mismatch(const Tensor& wanted, const Tensor& given) {
  if (given.sizes() != wanted.sizes()) return line(" has shape ", given.sizes(), ", expected ", wanted.sizes());
  if (wanted.is_floating_point() && !given.is_floating_point())
    return line(" has dtype ", c10::toString(given.scalar_type()), ", expected a floating-point dtype");
  if (!all_finite(given)) return " holds NaN or infinity";
  const bool changes = wanted.is_floating_point() && given.scalar_type() != wanted.scalar_type();
  if (!changes || all_finite(given.to(wanted.scalar_type()))) return "";
  return line(" holds NaN or infinity in ", c10::toString(wanted.scalar_type()));
}

}  // namespace

std::string describe_mismatch(const StateDict& wanted, const StateDict& given) {
  detail::FirstLines problems;
  for (const auto& [name, tensor] : wanted) {
    const auto it = given.find(name);
    if (it == given.end())
      problems.add("  missing: " + printable(name));
    else if (const std::string problem = mismatch(tensor, it->second); !problem.empty())
      problems.add("  " + printable(name) + problem);
  }
  for (const auto& [name, tensor] : given)
    if (!wanted.contains(name)) problems.add("  unexpected: " + printable(name));
  return std::string(problems.empty() ? "" : "\n").append(problems.text());
}

}  // namespace peft
