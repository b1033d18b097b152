#include "peft/runtime/profile.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <map>

namespace peft {

namespace {

using Clock = std::chrono::steady_clock;

struct Open {
  Clock::time_point begin;
  double inner = 0;  ///< seconds of the parts inside
};

struct Parts {
  std::map<std::string, double> seconds;
  std::vector<Open> open;
};

// The callbacks are plain functions: what they write to has to be found from anywhere.
thread_local Parts* listening = nullptr;

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction&) {
  if (listening != nullptr) listening->open.push_back({Clock::now()});
  return nullptr;
}

void end(const at::RecordFunction& function, at::ObserverContext*) {
  if (listening == nullptr || listening->open.empty()) return;
  const Open closed = listening->open.back();
  listening->open.pop_back();
  const double whole = std::chrono::duration<double>(Clock::now() - closed.begin).count();
  listening->seconds[function.name()] += whole - closed.inner;
  if (!listening->open.empty()) listening->open.back().inner += whole;
}

}  // namespace

StepProfile::StepProfile() {
  TORCH_CHECK(listening == nullptr, "a step is profiled already");
  listening = new Parts;
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::USER_SCOPE}));
}

StepProfile::~StepProfile() {
  at::removeCallback(handle_);
  delete listening;
  listening = nullptr;
}

std::vector<std::pair<std::string, double>> StepProfile::seconds() const {
  std::vector<std::pair<std::string, double>> all(listening->seconds.begin(), listening->seconds.end());
  std::ranges::stable_sort(all, std::greater{}, [](const auto& part) { return part.second; });
  return all;
}

void StepProfile::reset() { listening->seconds.clear(); }

}  // namespace peft
