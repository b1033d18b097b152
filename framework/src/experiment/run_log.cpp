#include "experiment/run_log.h"

#include <cerrno>
#include <cstring>

#include "peft/base/error.h"
#include "peft/files/json.h"

namespace peft {

using json = nlohmann::ordered_json;

namespace {

/// The lines of a metrics.jsonl up to `step`, without incomplete ones.
std::string lines_until(int64_t step, const std::string& path) {
  errno = 0;
  std::ifstream file(path);
  if (!file.is_open() && errno != ENOENT)
    throw ResourceError(printable_path(path) + ": cannot be read: " + std::strerror(errno));
  std::string lines;
  for (std::string line; std::getline(file, line);) {
    const json entry = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!entry.is_object() || entry.contains("train_loss") || !entry.contains("step")) continue;
    if (entry["step"].is_number_integer() && entry["step"].get<int64_t>() <= step) lines += line + "\n";
  }
  if (file.bad()) throw ResourceError(printable_path(path) + ": cannot be read");
  return lines;
}

}  // namespace

json logged_state(const TrainingCheckpoint& checkpoint) {
  const std::string path = checkpoint.path + "/trainer_state.json", name = printable_path(path);
  const json state = parse_json(read_text(path), name);
  const auto of = [&](const char* key) { return state.is_object() ? state.value(key, json()) : json(); };
  if (!of("log_history").is_array() || !of("epoch").is_number() || !of("max_steps").is_number_integer())
    throw InputError(name + ": not the log of a run; it must have 'log_history', 'epoch' and 'max_steps'");
  for (const json& line : state["log_history"])
    if (!line.is_object()) throw InputError(name + ": 'log_history' must contain objects only");
  return state;
}

RunLog::RunLog(const std::string& output_dir, const TrainingOptions& options)
    : output_dir_(output_dir), path_(output_dir + "/metrics.jsonl"), options_(options) {
  open(std::ios::trunc);
}

RunLog::RunLog(const std::string& output_dir, const TrainingOptions& options, int64_t step, const json& state)
    : output_dir_(output_dir), path_(output_dir + "/metrics.jsonl"), options_(options), history_(state["log_history"]) {
  last_.step = step;
  last_.epoch = state["epoch"].get<double>();
  last_.total_steps = state["max_steps"].get<int64_t>();
  write_file(path_, lines_until(step, path_));
  open(std::ios::app);
}

void RunLog::open(std::ios::openmode mode) {
  errno = 0;
  metrics_.open(path_, mode);
  check_written();
}

void RunLog::add(json history, const json& metrics) {
  history_.push_back(std::move(history));
  write(metrics);
}

void RunLog::write(const json& metrics) {
  errno = 0;
  metrics_ << metrics.dump() << std::endl;  // so that readers of the file see each line at once
  check_written();
}

void RunLog::check_written() const {
  if (!metrics_)
    throw ResourceError(printable_path(path_) +
                        ": cannot be written: " + (errno == 0 ? "the file is closed" : std::strerror(errno)));
}

void RunLog::on_step_end(const StepReport& r, TrainingControl&) {
  last_ = r;
  if (!r.logged) return;
  json line = {
      {"epoch", r.epoch}, {"grad_norm", r.grad_norm}, {"learning_rate", r.lr}, {"loss", r.mean_loss}, {"step", r.step}};
  json metrics = line;
  metrics.update(json{{"tokens", r.tokens},
                      {"supervised", r.num_target_tokens},
                      {"seconds", r.seconds},
                      {"tokens_per_second", r.tokens_per_second},
                      {"allocated_bytes", r.memory.allocated},
                      {"reserved_bytes", r.memory.reserved},
                      {"peak_allocated_bytes", r.memory.peak_allocated},
                      {"skipped", r.skipped},
                      {"nonfinite", r.nonfinite}});
  add(line, metrics);
}

/// In metrics.jsonl only: trainer_state.json has no key for it.
void RunLog::on_nonfinite_step(const NonFiniteStep& r, TrainingControl&) {
  last_.step = r.step;
  last_.epoch = r.epoch;
  last_.total_steps = r.total_steps;
  write(
      {{"epoch", r.epoch}, {"step", r.step}, {"fault", r.what}, {"examples", r.examples}, {"nonfinite", r.nonfinite}});
}

void RunLog::on_evaluate(const EvalReport& r, TrainingControl&) {
  const json line = {{"epoch", r.epoch}, {"eval_loss", r.loss}, {"eval_runtime", r.seconds}, {"step", r.step}};
  add(line, line);
}

void RunLog::add_totals(const TrainingResult& r) {
  const json line = {{"epoch", r.epochs},
                     {"step", r.steps},
                     {"train_loss", r.loss},
                     {"train_runtime", r.seconds},
                     {"train_steps_per_second", static_cast<double>(r.steps) / r.seconds},
                     {"train_tokens_per_second", static_cast<double>(r.tokens) / r.seconds}};
  add(line, line);
}

std::string RunLog::state(const Best& best) const {
  json state = {{"best_global_step", nullptr},
                {"best_metric", nullptr},
                {"best_model_checkpoint", nullptr},
                {"epoch", last_.epoch},
                {"eval_steps", options_.eval_every},
                {"global_step", last_.step},
                {"is_hyper_param_search", false},
                {"is_local_process_zero", true},
                {"is_world_process_zero", true},
                {"log_history", history_},
                {"logging_steps", options_.log_every},
                {"max_steps", last_.total_steps},
                {"num_train_epochs", options_.epochs},
                {"save_steps", options_.save_every},
                {"train_batch_size", options_.batch_size},
                {"trial_name", nullptr},
                {"trial_params", nullptr}};
  if (best) {
    state["best_global_step"] = best->step;
    state["best_metric"] = best->loss;
    state["best_model_checkpoint"] = checkpoint_folder(output_dir_, best->step);
  }
  return state.dump(2) + "\n";
}

}  // namespace peft
