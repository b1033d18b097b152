#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "peft/base/export.h"
#include "peft/models/decoder.h"

namespace peft {

/// A batch of the training data, on the model's device.
struct CalibrationBatch {
  PackedTokens input;
  Tensor labels;                  ///< [T] int64, −100 where nothing is learned; not shifted
  int64_t num_target_tokens = 0;  ///< of them, those that the loss is the mean over
  /// Starts and labels of the rows that layers see: where adapters attached before put virtual tokens in front of each
  /// example, these are among them, and have no label.
  std::vector<int64_t> row_cu_seqlens;
  Tensor row_labels;
};

/// What a method may learn from before it is attached: the run's own data, and the base's loss on it. Who trains makes
/// one; the method decides how many batches it looks at, and how often.
struct Calibration {
  std::size_t batches = 0;                                    ///< of one pass over the data
  std::function<CalibrationBatch(std::size_t index)> batch;   ///< the same each time it is asked for
  std::function<Tensor(const CalibrationBatch& batch)> loss;  ///< mean over the batch's supervised tokens, as trained
};

/// Sees what goes into sites for as long as it lives, and changes nothing. The sites run unfused meanwhile.
class PEFT_API InputProbe {
 public:
  /// `index`: of the site in the list; x: [..., in].
  using Seen = std::function<void(std::size_t index, const Tensor& x)>;
  InputProbe(std::vector<Site*> sites, const Seen& seen);
  ~InputProbe();
  InputProbe(const InputProbe&) = delete;
  InputProbe& operator=(const InputProbe&) = delete;

 private:
  std::vector<Site*> sites_;
  std::vector<std::shared_ptr<AdapterLayer>> layers_;
};

/// The gradients of Linear sites' frozen weights, each summed over `losses` losses' backward passes: [out, in] in fp32,
/// or in the weight's type if that is wider. No other gradient is kept.
PEFT_API std::vector<Tensor> weight_gradients(const std::vector<Site*>& sites, std::size_t losses,
                                              const std::function<Tensor(std::size_t index)>& loss);

}  // namespace peft
