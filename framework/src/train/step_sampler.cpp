#include <algorithm>
#include <cmath>

#include "peft/base/error.h"
#include "peft/runtime/scalar_state.h"
#include "peft/train/train.h"

namespace peft {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

StepSampler::StepSampler(const Dataset& data, const TrainingOptions& options, bool packing, int64_t max_length)
    : data_(data), options_(options), packing_(packing), max_length_(max_length) {
  if (data.examples.empty()) throw InputError("the training data has no examples");
  if (options.max_steps) {
    total_ = *options.max_steps;
    return;
  }
  // With packing the number of batches depends on the epoch's order.
  const auto full_epochs = static_cast<int64_t>(std::floor(options.epochs));
  const double fraction = options.epochs - static_cast<double>(full_epochs);
  for (int64_t epoch = 0; epoch <= full_epochs; ++epoch) {
    if (epoch == full_epochs && fraction <= 0) break;
    const auto batches = packing ? static_cast<int64_t>(epoch_batches(data, options.batch_size, true, max_length,
                                                                      static_cast<uint64_t>(options.seed), epoch)
                                                            .size())
                                 : ceil_div(static_cast<int64_t>(data.examples.size()), options.batch_size);
    const int64_t steps = ceil_div(batches, options.gradient_accumulation_steps);
    total_ += epoch < full_epochs ? steps : static_cast<int64_t>(std::ceil(fraction * static_cast<double>(steps)));
  }
}

void StepSampler::begin_epoch() {
  batches_ =
      epoch_batches(data_, options_.batch_size, packing_, max_length_, static_cast<uint64_t>(options_.seed), epoch_++);
  at_ = 0;
}

StateDict StepSampler::state_dict() const {
  ScalarState out;
  out.put("epoch", static_cast<double>(epoch_));
  out.put("batch", static_cast<double>(at_));
  return out.state_dict();
}

void StepSampler::load_state_dict(const StateDict& state) {
  const ScalarState in(state);
  const int64_t epoch = in.count("epoch"), batch = in.count("batch");
  epoch_ = std::max<int64_t>(epoch - 1, 0);
  batches_.clear();
  at_ = 0;
  if (epoch > 0) begin_epoch();
  if (epoch < 0 || batch < 0 || batch > static_cast<int64_t>(batches_.size()))
    throw InputError("the checkpoint's position is outside the data");
  at_ = static_cast<std::size_t>(batch);
}

StepSampler::Step StepSampler::next() {
  if (at_ == batches_.size()) begin_epoch();
  Step step;
  const std::size_t end =
      std::min(batches_.size(), at_ + static_cast<std::size_t>(options_.gradient_accumulation_steps));
  step.batches.assign(batches_.begin() + static_cast<std::ptrdiff_t>(at_),
                      batches_.begin() + static_cast<std::ptrdiff_t>(end));
  at_ = end;
  step.epoch = static_cast<double>(epoch_ - 1) + static_cast<double>(end) / static_cast<double>(batches_.size());
  return step;
}

}  // namespace peft
