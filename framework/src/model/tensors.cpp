#include "peft/tensors.h"

#include <torch/torch.h>

#include <sstream>

#include "model/finite.h"
#include "peft/error.h"

namespace peft {

std::string misfits(const State& wanted, const State& given) {
  std::ostringstream problems;
  problems.exceptions(std::ios::badbit);  // what cannot be written must not be taken for no problem
  for (const auto& [name, tensor] : wanted) {
    const auto it = given.find(name);
    if (it == given.end())
      problems << "\n  missing: " << printable(name);
    else if (it->second.sizes() != tensor.sizes())
      problems << "\n  " << printable(name) << " has shape " << it->second.sizes() << ", expected " << tensor.sizes();
    else if (!all_finite(it->second))
      problems << "\n  " << printable(name) << " holds NaN or infinity";
  }
  for (const auto& [name, tensor] : given)
    if (!wanted.contains(name)) problems << "\n  unexpected: " << printable(name);
  return problems.str();
}

}  // namespace peft
