#pragma once

#include <peft/runtime/tensors.h>

#include <array>
#include <string>
#include <vector>

namespace adalora {

/// The schedule of ranks, with HF PEFT's names. Steps are optimizer steps, from 1.
struct Schedule {
  int64_t init_r = 12;
  int64_t target_r = 8;
  int64_t tinit = 0;
  int64_t tfinal = 0;
  int64_t deltaT = 1;
  double beta1 = 0.85, beta2 = 0.85;

  /// Why a run of `total_steps` is too short; "" if it is not.
  std::string schedule_error(int64_t total_steps) const;
};

/// The trainable parameters of one update ΔW = s · B·diag(E)·A.
struct Triplets {
  torch::Tensor A, B, E;  ///< [r, in], [out, r], [r, 1]
};

/// HF PEFT's RankAllocator: keeps the most important triplets (a row of A, a column of B, a value of E) of all updates,
/// by their smoothed |p · gradient| (Zhang et al. 2023, section 3.2).
class Budget {
 public:
  Budget(Schedule schedule, std::vector<Triplets> updates);
  /// Call after the optimizer's step, while gradients exist. At allocation steps, zeroes the E of the least important
  /// triplets.
  void after_step(int64_t step, int64_t total_steps);
  /// Per update, the triplets that are kept, [r] bool; empty before the first allocation.
  const std::vector<torch::Tensor>& masks() const { return masks_; }
  /// Importances, masks, and whether the ranks are final. Throws InputError for a state of other updates.
  peft::StateDict state_dict() const;
  void load_state_dict(const peft::StateDict& state);

 private:
  struct Importance {
    torch::Tensor sensitivity, uncertainty;
  };
  void update_importance();
  void allocate(int64_t num_kept);
  void apply_masks() const;
  torch::Tensor score(std::size_t update) const;
  Schedule schedule_;
  std::vector<Triplets> updates_;
  std::vector<std::array<Importance, 3>> importance_;  // of A, B, E
  std::vector<torch::Tensor> masks_;
  bool is_final_ = false;
};

}  // namespace adalora
