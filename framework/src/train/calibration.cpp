#include "peft/calibration.h"

#include <torch/torch.h>

#include <algorithm>

#include "model/virtual_rows.h"
#include "peft/train.h"
#include "train/in_precision.h"

namespace peft {

namespace {

CalibrationBatch look_at(const Batch& batch, const Model& model) {
  const int64_t n = model.virtual_tokens();
  CalibrationBatch seen{.input = to_input(batch, model.device()),
                        .labels = to_labels(batch, model.device()),
                        .supervised = batch.supervised(n > 0),
                        .row_starts = starts_with(n, batch.starts),
                        .row_labels = {}};
  const Tensor none = at::full({n}, ignored_label, seen.labels.options());
  seen.row_labels = n > 0 ? put_in_front(none, seen.labels, batch.starts) : seen.labels;
  return seen;
}

}  // namespace

Calibration calibration(const Model& model, Precision& precision, const Dataset& data, const TrainingOptions& options,
                        bool packing, int64_t max_length) {
  auto batches =
      epoch_batches(data, options.batch_size, packing, max_length, static_cast<uint64_t>(options.seed), /*epoch=*/0);
  const std::size_t count = batches.size();
  return {.batches = count,
          .batch = [&model, &data, batches = std::move(batches)](
                       std::size_t index) { return look_at(make_batch(data, batches.at(index)), model); },
          .loss =
              [&model, &precision](const CalibrationBatch& batch) {
                return forward_in(precision, [&] {
                  return model.loss_sum(batch.input, batch.labels) /
                         static_cast<double>(std::max<int64_t>(batch.supervised, 1));
                });
              }};
}

}  // namespace peft
