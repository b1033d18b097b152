#include "peft/train/scheduler.h"

#include "peft/base/error.h"

namespace peft {

Scheduler::~Scheduler() = default;

void Scheduler::load(const std::map<std::string, double>& state) {
  if (!state.empty()) throw InputError("this scheduler keeps no state, but the checkpoint has some");
}

}  // namespace peft
