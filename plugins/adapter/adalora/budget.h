#pragma once

#include <peft/runtime/tensors.h>

#include <array>
#include <string>
#include <vector>

namespace adalora {

/// HF PEFT's names. Steps are optimizer steps, from 1.
struct Schedule {
  int64_t init_r = 12;
  int64_t target_r = 8;
  int64_t tinit = 0;
  int64_t tfinal = 0;
  int64_t deltaT = 1;
  double beta1 = 0.85, beta2 = 0.85;

  /// What is wrong with a run of `total` steps, or "".
  std::string unsuited(int64_t total) const;
};

/// What one update ΔW = s · B·diag(E)·A trains.
struct Triplets {
  torch::Tensor A, B, E;  ///< [r, in], [out, r], [r, 1]
};

/// PEFT's RankAllocator: which triplets (a row of A, a column of B, a value of E) of all updates together are worth
/// keeping, by their smoothed |p · gradient| (Zhang et al. 2023, section 3.2).
class Budget {
 public:
  Budget(Schedule schedule, std::vector<Triplets> updates);
  /// After the optimizer's step, with the gradients still there: zeroes the E of the least important triplets where
  /// this step is one for it.
  void after_step(int64_t step, int64_t total);
  /// By update, which triplets are kept, [r] bool; empty before the first allocation.
  const std::vector<torch::Tensor>& masks() const { return masks_; }
  /// Importances, masks and whether they are settled; and back. Throws InputError for those of other updates.
  peft::StateDict state_dict() const;
  void load_state_dict(const peft::StateDict& state);

 private:
  struct Importance {
    torch::Tensor sensitivity, uncertainty;
  };
  void watch();
  void allocate(int64_t kept);
  void apply() const;
  torch::Tensor score(std::size_t update) const;
  Schedule schedule_;
  std::vector<Triplets> updates_;
  std::vector<std::array<Importance, 3>> importance_;  // of A, B, E
  std::vector<torch::Tensor> masks_;
  bool settled_ = false;
};

}  // namespace adalora
