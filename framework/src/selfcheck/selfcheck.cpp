#include "peft/selfcheck/selfcheck.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <sstream>

#include "peft/base/error.h"
#include "plugin/plugin_call.h"
#include "selfcheck/checks.h"

namespace peft {

bool Checks::check(const std::string& name, const std::string& detail, const std::function<std::string()>& work) {
  std::string problem;
  try {
    problem = work();
  } catch (...) {
    detail::rethrow_missing_memory();
    problem = detail::current_exception_text();
  }
  report(name, problem.empty(), problem.empty() ? detail : problem);
  return problem.empty();
}

StateDict copy_of(const StateDict& state) {
  StateDict copy;
  for (const auto& [name, tensor] : state) copy.emplace(name, tensor.detach().clone());
  return copy;
}

namespace {

/// Also if both hold NaN in the same places.
bool is_same(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && at::equal(a.nan_to_num(), b.nan_to_num()) &&
         at::equal(a.isnan(), b.isnan());
}

}  // namespace

std::string difference(const std::vector<Tensor>& expected, const std::vector<Tensor>& found) {
  if (expected.size() != found.size())
    return std::to_string(found.size()) + " results instead of " + std::to_string(expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (is_same(expected[i], found[i])) continue;
    std::string text = "result " + std::to_string(i + 1) + " differs";
    if (expected[i].defined() && found[i].defined() && expected[i].sizes() == found[i].sizes())
      text += " by " + text_of_number((expected[i] - found[i]).abs().max().to(torch::kDouble).item<double>());
    return text;
  }
  return "";
}

std::string difference(const StateDict& expected, const StateDict& found) {
  for (const auto& [name, tensor] : expected) {
    const auto it = found.find(name);
    if (it == found.end()) return "the state lacks '" + printable(name) + "'";
    if (!is_same(tensor, it->second)) return "'" + printable(name) + "' of the state differs";
  }
  for (const auto& [name, tensor] : found)
    if (!expected.contains(name)) return "the state has '" + printable(name) + "' in addition";
  return "";
}

std::string accepts_foreign_state(Stateful& object) {
  try {
    object.load_state_dict({{"selfcheck.unknown", torch::zeros({2}, torch::kDouble)}});
  } catch (const InputError&) {
    return "";
  }
  return "load_state_dict accepts an entry 'selfcheck.unknown' that it does not know";
}

std::string text_of_number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::vector<CheckResult> selfcheck(Plugins& plugins, const std::string& kind, const std::string& name,
                                   const std::string& options) {
  Checks checks;
  bool found = false;
  for_each_plugin_kind([&](auto each) {
    if (each.name != kind) return;
    found = true;
    const Subject subject{plugins, name, options};
    subject.make<typename decltype(each)::Interface>();  // a plugin that cannot be made is not a result
    run_checks(each, subject, checks);
  });
  if (!found) throw ConfigError("'" + printable(kind) + "' is not a plugin kind");
  return std::move(checks).results();
}

}  // namespace peft
