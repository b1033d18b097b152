#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "peft/base/export.h"
#include "peft/models/model.h"

namespace peft {

/// A batch of the training data, on the model's device.
struct CalibrationBatch {
  PackedTokens input;
  Tensor labels;                  ///< [T] int64, −100 at positions that are not targets; not shifted
  int64_t num_target_tokens = 0;  ///< labels that are predicted
  /// Offsets and labels of the rows that layers see. If adapters attached before add virtual tokens to each example,
  /// these are among the rows, without a label.
  std::vector<int64_t> row_cu_seqlens;
  Tensor row_labels;
  std::vector<double> totals = {};  ///< what the objective divides the batch's loss by
};

/// The run's training data and the base's loss on it. The method decides how many batches it uses, and how often.
struct Calibration {
  std::size_t batches = 0;                                    ///< of one pass over the data
  std::function<CalibrationBatch(std::size_t index)> batch;   ///< returns the same batch for the same index
  std::function<Tensor(const CalibrationBatch& batch)> loss;  ///< the run's objective, on this batch alone
};

/// The part of a method that computes initial values from data (Adapter::calibrated): EVA from inputs, LoRA-GA from
/// gradients.
class PEFT_API Calibrated {
 public:
  virtual ~Calibrated();
  /// Called before attach if training starts from the base, not if a saved adapter is loaded. Leaves no layer on the
  /// model, but may already change its architecture as attach would.
  void calibrate(Model& model, const Calibration& data);

 protected:
  virtual void do_calibrate(Model& model, const Calibration& data) = 0;
};

/// Records the inputs of sites during its lifetime, without changing the outputs. The fused path is off meanwhile.
class PEFT_API InputProbe {
 public:
  /// `index`: of the site in the list; x: [..., in].
  using OnInput = std::function<void(std::size_t index, const Tensor& x)>;
  InputProbe(std::vector<Site*> sites, const OnInput& on_input);
  ~InputProbe();
  InputProbe(const InputProbe&) = delete;
  InputProbe& operator=(const InputProbe&) = delete;

 private:
  std::vector<Site*> sites_;
  std::vector<std::shared_ptr<AdapterLayer>> layers_;
};

/// The gradients of Linear sites' frozen weights, each summed over the backward passes of `losses` losses: [out, in] in
/// fp32, or fp64 if the weight is. No other gradient is stored.
PEFT_API std::vector<Tensor> weight_gradients(const std::vector<Site*>& sites, std::size_t losses,
                                              const std::function<Tensor(std::size_t index)>& loss);

}  // namespace peft
