#include "peft/train/calibration_batches.h"

#include <torch/types.h>

#include <algorithm>

#include "nn/prefix.h"
#include "peft/data/sampler.h"

namespace peft {

namespace {

CalibrationBatch calibration_batch(const Batch& batch, const CausalLm& model, const Objective& objective) {
  const int64_t n = model.virtual_tokens();
  CalibrationBatch result{.input = to_packed_tokens(batch, model.device()),
                          .labels = to_labels(batch, model.device()),
                          .num_target_tokens = batch.num_target_tokens(n > 0),
                          .row_cu_seqlens = shift_cu_seqlens(n, batch.cu_seqlens),
                          .row_labels = {},
                          .totals = objective.totals(batch, n > 0)};
  const Tensor ignored = at::full({n}, ignored_label, result.labels.options());
  result.row_labels = n > 0 ? prepend_to_each(ignored, result.labels, batch.cu_seqlens) : result.labels;
  for (double& total : result.totals) total = std::max(total, 1.0);  // a batch may have nothing to learn from
  return result;
}

}  // namespace

Calibration calibration(const CausalLm& model, Precision& precision, Objective& objective, const Dataset& data,
                        const TrainingOptions& options, bool packing, int64_t max_length) {
  auto batches =
      epoch_batches(data, options.batch_size, packing, max_length, static_cast<uint64_t>(options.seed), /*epoch=*/0);
  const std::size_t count = batches.size();
  return {.batches = count,
          .batch =
              [&model, &objective, &data, batches = std::move(batches)](std::size_t index) {
                return calibration_batch(make_batch(data, batches.at(index)), model, objective);
              },
          .loss =
              [&model, &precision, &objective](const CalibrationBatch& batch) {
                return precision.forward([&] {
                  const Pass pass(model, batch.input, batch.labels);
                  return objective.loss(pass, batch.totals);
                });
              }};
}

}  // namespace peft
