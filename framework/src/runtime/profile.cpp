#include "peft/runtime/profile.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <map>

namespace peft {

namespace {

using Clock = std::chrono::steady_clock;

struct OpenScope {
  Clock::time_point begin;
  double nested = 0;  ///< seconds in nested scopes
};

struct Recording {
  std::map<std::string, double> seconds;
  std::vector<OpenScope> open;
};

// The callbacks are plain functions without a context argument.
thread_local Recording* recording = nullptr;

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction&) {
  if (recording != nullptr) recording->open.push_back({Clock::now()});
  return nullptr;
}

void end(const at::RecordFunction& function, at::ObserverContext*) {
  if (recording == nullptr || recording->open.empty()) return;
  const OpenScope closed = recording->open.back();
  recording->open.pop_back();
  const double elapsed = std::chrono::duration<double>(Clock::now() - closed.begin).count();
  recording->seconds[function.name()] += elapsed - closed.nested;
  if (!recording->open.empty()) recording->open.back().nested += elapsed;
}

}  // namespace

StepProfile::StepProfile() {
  TORCH_CHECK(recording == nullptr, "a step is already being profiled");
  recording = new Recording;
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::USER_SCOPE}));
}

StepProfile::~StepProfile() {
  at::removeCallback(handle_);
  delete recording;
  recording = nullptr;
}

std::vector<std::pair<std::string, double>> StepProfile::seconds() const {
  std::vector<std::pair<std::string, double>> all(recording->seconds.begin(), recording->seconds.end());
  std::ranges::stable_sort(all, std::greater{}, [](const auto& scope) { return scope.second; });
  return all;
}

void StepProfile::reset() { recording->seconds.clear(); }

}  // namespace peft
