// Runs an experiment file: embed EXPERIMENT.toml [TABLE.KEY=VALUE]...
#include <peft/peft.h>

#include <iostream>

int main(int argc, char** argv) try {
  if (argc < 2) throw peft::ConfigError("usage: embed EXPERIMENT.toml [TABLE.KEY=VALUE]...");
  const auto result = peft::run(peft::Experiment::from_file(argv[1], {argv + 2, argv + argc}));
  std::cout << "trained " << result.steps << " steps, mean loss " << result.loss << "\n";
} catch (const peft::Error& error) {
  std::cerr << error.what() << "\n";
  return static_cast<int>(error.kind());
}
