#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "peft/train/checkpoint.h"
#include "peft/train/train.h"

namespace peft {

/// A checkpoint's trainer_state.json. Throws InputError if it is not one.
nlohmann::ordered_json logged_state(const TrainingCheckpoint& checkpoint);

/// Writes `metrics.jsonl`, a line for each logged step as it happens, and makes HF's `trainer_state.json`.
class RunLog : public TrainingCallback {
 public:
  RunLog(const std::string& output_dir, const TrainingOptions& options);
  /// Continues after `step` with its checkpoint's logged_state(). Removes the lines of later steps from metrics.jsonl.
  RunLog(const std::string& output_dir, const TrainingOptions& options, int64_t step,
         const nlohmann::ordered_json& state);
  void on_step_end(const StepReport& report, TrainingControl& control) override;
  void on_nonfinite_step(const NonFiniteStep& report, TrainingControl& control) override;
  void on_evaluate(const EvalReport& report, TrainingControl& control) override;
  void add_totals(const TrainingResult& result);
  /// Text of trainer_state.json as of now. `best`: the checkpoint with the lowest evaluation loss.
  std::string state(const Best& best) const;

 private:
  void open(std::ios::openmode mode);
  void add(nlohmann::ordered_json history, const nlohmann::ordered_json& metrics);
  void write(const nlohmann::ordered_json& metrics);
  void check_written() const;
  std::string output_dir_, path_;
  std::ofstream metrics_;
  TrainingOptions options_;
  nlohmann::ordered_json history_ = nlohmann::ordered_json::array();
  StepReport last_;
};

}  // namespace peft
