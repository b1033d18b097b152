#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "peft/train.h"

/// `metrics.jsonl`, a line for each logged step as it happens, and HF's `trainer_state.json`.
class RunLog : public peft::Observer {
 public:
  RunLog(const std::string& folder, const peft::TrainingOptions& options);
  void stepped(const peft::StepReport& report) override;
  void evaluated(const peft::EvalReport& report) override;
  void finished(const peft::TrainingResult& result);
  /// Writes trainer_state.json as of now.
  void write_state(const std::string& folder) const;

 private:
  void add(nlohmann::ordered_json history, const nlohmann::ordered_json& metrics);
  std::string path_;
  std::ofstream metrics_;
  peft::TrainingOptions options_;
  nlohmann::ordered_json history_ = nlohmann::ordered_json::array();
  peft::StepReport last_;
};
