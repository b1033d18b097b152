#include "peft/adapters/calibration.h"

#include <torch/torch.h>

#include <algorithm>

#include "nn/prefix.h"
#include "peft/train/train.h"

namespace peft {

namespace {

CalibrationBatch look_at(const Batch& batch, const Model& model) {
  const int64_t n = model.virtual_tokens();
  CalibrationBatch seen{.input = to_packed_tokens(batch, model.device()),
                        .labels = to_labels(batch, model.device()),
                        .num_target_tokens = batch.num_target_tokens(n > 0),
                        .row_cu_seqlens = shift_cu_seqlens(n, batch.cu_seqlens),
                        .row_labels = {}};
  const Tensor none = at::full({n}, ignored_label, seen.labels.options());
  seen.row_labels = n > 0 ? prepend_to_each(none, seen.labels, batch.cu_seqlens) : seen.labels;
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
                return precision.forward([&] {
                  return model.loss_sum(batch.input, batch.labels) /
                         static_cast<double>(std::max<int64_t>(batch.num_target_tokens, 1));
                });
              }};
}

}  // namespace peft
