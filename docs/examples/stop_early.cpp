// Stops a run when the evaluation loss no longer improves: stop_early EXPERIMENT.toml PATIENCE [TABLE.KEY=VALUE]...
#include <peft/peft.h>

#include <iostream>
#include <limits>

/// Stops after `patience` evaluations in a row without a new lowest loss.
class EarlyStopping : public peft::TrainingCallback {
 public:
  explicit EarlyStopping(int patience) : patience_(patience) {}

  void on_evaluate(const peft::EvalReport& report, peft::TrainingControl& control) override {
    std::cout << "step " << report.step << ": evaluation loss " << report.loss << std::endl;
    if (report.loss < lowest_) {
      lowest_ = report.loss;
      without_improvement_ = 0;
    } else if (++without_improvement_ == patience_) {
      control.should_stop = true;
    }
  }

  /// A stopped run has saved a checkpoint, which is an adapter too.
  void on_run_end(const peft::RunEnd& end) override {
    std::cout << "adapter: " << (end.result.stopped ? end.checkpoint : end.adapters.front()) << "\n";
  }

 private:
  int patience_, without_improvement_ = 0;
  double lowest_ = std::numeric_limits<double>::infinity();
};

int main(int argc, char** argv) try {
  if (argc < 3) throw peft::ConfigError("usage: stop_early EXPERIMENT.toml PATIENCE [TABLE.KEY=VALUE]...");
  EarlyStopping early_stopping(std::stoi(argv[2]));
  peft::run(peft::Experiment::from_file(argv[1], {argv + 3, argv + argc}), {&early_stopping});
} catch (const peft::Error& error) {
  std::cerr << error.what() << "\n";
  return static_cast<int>(error.kind());
}
