#include "peft/calibration.h"

#include <algorithm>

#include "model/supervised.h"
#include "peft/train.h"

namespace peft {

Calibration calibration(const Model& model, Precision& precision, const Dataset& data, const TrainingOptions& options,
                        bool packing, int64_t max_length) {
  auto batches =
      epoch_batches(data, options.batch_size, packing, max_length, static_cast<uint64_t>(options.seed), /*epoch=*/0);
  const std::size_t count = batches.size();
  return {.batches = count,
          .batch =
              [&model, &data, batches = std::move(batches)](std::size_t index) {
                const Batch batch = make_batch(data, batches.at(index));
                return CalibrationBatch{to_input(batch, model.device()), to_labels(batch, model.device())};
              },
          .loss =
              [&model, &precision](const CalibrationBatch& batch) {
                const auto supervised = supervised_rows(batch.input.starts, batch.labels).rows.size(0);
                return precision.forward([&] {
                  return model.loss_sum(batch.input, batch.labels) /
                         static_cast<double>(std::max<int64_t>(supervised, 1));
                });
              }};
}

}  // namespace peft
