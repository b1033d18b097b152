#include "run_log.h"

#include "peft/error.h"
#include "peft/files/json.h"

using json = nlohmann::ordered_json;

RunLog::RunLog(const std::string& folder, const peft::TrainingOptions& options)
    : path_(folder + "/metrics.jsonl"), metrics_(path_, std::ios::trunc), options_(options) {
  if (!metrics_) throw peft::ResourceError(peft::printable(path_, 4096) + ": cannot be written");
}

void RunLog::add(json history, const json& metrics) {
  history_.push_back(std::move(history));
  metrics_ << metrics.dump() << std::endl;  // whoever watches the file sees each line at once
  if (!metrics_) throw peft::ResourceError(peft::printable(path_, 4096) + ": cannot be written; is the disk full?");
}

void RunLog::stepped(const peft::StepReport& r) {
  last_ = r;
  if (!r.logged) return;
  json line = {
      {"epoch", r.epoch}, {"grad_norm", r.grad_norm}, {"learning_rate", r.lr}, {"loss", r.mean_loss}, {"step", r.step}};
  json metrics = line;
  metrics.update(json{{"tokens", r.tokens},
                      {"supervised", r.supervised},
                      {"seconds", r.seconds},
                      {"tokens_per_second", r.tokens_per_second},
                      {"allocated_bytes", r.memory.allocated},
                      {"reserved_bytes", r.memory.reserved},
                      {"peak_allocated_bytes", r.memory.peak_allocated},
                      {"skipped", r.skipped}});
  add(line, metrics);
}

void RunLog::evaluated(const peft::EvalReport& r) {
  const json line = {{"epoch", r.epoch}, {"eval_loss", r.loss}, {"eval_runtime", r.seconds}, {"step", r.step}};
  add(line, line);
}

void RunLog::finished(const peft::TrainingResult& r) {
  const json line = {{"epoch", r.epochs},
                     {"step", r.steps},
                     {"train_loss", r.loss},
                     {"train_runtime", r.seconds},
                     {"train_steps_per_second", static_cast<double>(r.steps) / r.seconds},
                     {"train_tokens_per_second", static_cast<double>(r.tokens) / r.seconds}};
  add(line, line);
}

void RunLog::write_state(const std::string& folder) const {
  const json state = {{"best_metric", nullptr},
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
  peft::write_file(folder + "/trainer_state.json", state.dump(2) + "\n");
}
