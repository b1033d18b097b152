#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "peft/train/train.h"

/// What a checkpoint's trainer_state.json tells; throws InputError where it is none.
nlohmann::ordered_json logged_state(const peft::TrainingCheckpoint& from);

/// `metrics.jsonl`, a line for each logged step as it happens, and HF's `trainer_state.json`.
class RunLog : public peft::TrainingCallback {
 public:
  RunLog(const std::string& folder, const peft::TrainingOptions& options);
  /// Goes on behind `step` with its checkpoint's logged_state(): what `folder`'s metrics.jsonl tells of later steps is
  /// taken out of it.
  RunLog(const std::string& folder, const peft::TrainingOptions& options, int64_t step,
         const nlohmann::ordered_json& state);
  void on_step_end(const peft::StepReport& report) override;
  void on_nonfinite_step(const peft::NonFiniteStep& report) override;
  void on_evaluate(const peft::EvalReport& report) override;
  void finished(const peft::TrainingResult& result);
  /// trainer_state.json as of now; `best`: of the checkpoint of least evaluation loss.
  std::string state(const peft::Best& best) const;

 private:
  void open(std::ios::openmode mode);
  void add(nlohmann::ordered_json history, const nlohmann::ordered_json& metrics);
  void write(const nlohmann::ordered_json& metrics);
  void require_written() const;
  std::string folder_, path_;
  std::ofstream metrics_;
  peft::TrainingOptions options_;
  nlohmann::ordered_json history_ = nlohmann::ordered_json::array();
  peft::StepReport last_;
};
