#include "train/progress.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "peft/adapters/training_hooks.h"
#include "peft/base/error.h"
#include "peft/runtime/scalar_state.h"
#include "plugin/plugin_call.h"

namespace peft {

TrainingCallback::~TrainingCallback() = default;

namespace {

double seconds(std::chrono::steady_clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

/// A run of another length resumes only from a state that it would have reached itself, and not from its own end, whose
/// evaluation and log line would be missing.
void check_schedule_unchanged(const TrainingSession& run, int64_t done, int64_t before, int64_t now,
                              int64_t evaluated_at) {
  const std::string lengths =
      "the run had " + std::to_string(before) + " steps and now has " + std::to_string(now) + ", ";
  if (done == now)
    throw ConfigError(lengths + "which is the checkpoint's step: no step is left; its adapter is in its folder");
  if (run.scheduler.needs_evaluations() && run.options.eval_every > 0 && evaluated_at % run.options.eval_every != 0)
    throw ConfigError(lengths + "and the schedule used the final evaluation at step " + std::to_string(evaluated_at) +
                      ", which a longer run does not have; resume from an earlier checkpoint");
  for (Adapter* adapter : run.adapters)
    if (const TrainingHooks* hooks = adapter->training_hooks(); hooks != nullptr && hooks->depends_on_total_steps())
      throw ConfigError(lengths + "on which the adapter's method depends");
  for (int64_t step = 0; step < done; ++step) {
    const double then = run.scheduler.lr(step, before, 1);
    const double would = run.scheduler.lr(step, now, 1);
    if (then != would)
      throw ConfigError(lengths + "on which the schedule depends: the learning rate of step " +
                        std::to_string(step + 1) + " was " + std::to_string(then) +
                        " of the initial one and would be " + std::to_string(would) +
                        "; only a schedule that does not depend on the length, such as \"constant\", can change it");
  }
}

}  // namespace

Progress::Progress(const TrainingSession& run, int64_t total_steps)
    : run_(run),
      total_(total_steps),
      begin_(Clock::now()),
      step_begin_(begin_),
      logged_(begin_),
      learning_(run.model) {}

void Progress::step(StepReport report, std::size_t example) {
  const Clock::time_point now = Clock::now();
  ++steps_since_;
  loss_since_ += report.loss;
  loss_sum_ += report.loss;
  tokens_since_ += report.tokens;
  result_.steps = report.step;
  result_.tokens += report.tokens;
  result_.epochs = report.epoch;
  learned_ = example;

  report.total_steps = total_;
  report.mean_loss = loss_since_ / static_cast<double>(steps_since_);
  report.lr = run_.optimizer.groups().front().lr;
  report.seconds = seconds(now - step_begin_);
  if (std::exchange(begun_, true)) result_.seconds_after_first += report.seconds;
  report.tokens_per_second = static_cast<double>(tokens_since_) / std::max(seconds(now - logged_), 1e-9);
  report.seconds_left =
      seconds(now - begin_) / static_cast<double>(report.step) * static_cast<double>(total_ - report.step);
  report.memory = memory_stats(run_.model.device());
  const MemoryMeter::Peak peak = run_.memory.peak();  // the statistics reset theirs in each phase
  report.memory.peak_allocated = peak.allocated;
  report.memory.peak_reserved = peak.reserved;
  report.skipped = result_.skipped;
  report.nonfinite = result_.nonfinite;
  report.logged = report.step == 1 || report.step == total_ || report.step % run_.options.log_every == 0;
  for (TrainingCallback* callback : run_.callbacks) callback->on_step_end(report, control_);
  if (report.logged) {
    loss_since_ = 0;
    steps_since_ = tokens_since_ = 0;
    logged_ = Clock::now();
  }
  step_begin_ = Clock::now();
}

std::string Progress::fault(NonFiniteStep report) {
  tokens_since_ += report.tokens;
  result_.steps = report.step;
  result_.tokens += report.tokens;
  result_.epochs = report.epoch;
  report.total_steps = total_;
  report.nonfinite = ++result_.nonfinite;
  if (report.nonfinite == 1) first_fault_ = report.step;
  for (TrainingCallback* callback : run_.callbacks) callback->on_nonfinite_step(report, control_);
  step_begin_ = Clock::now();

  constexpr std::size_t max_listed = 8;
  std::string text = "step " + std::to_string(report.step) + ": " + report.what + ", on ";
  for (std::size_t i = 0; i < std::min(max_listed, report.examples.size()); ++i)
    text += (i == 0 ? "" : ", ") + report.examples[i];
  if (report.examples.size() > max_listed)
    text += " and " + std::to_string(report.examples.size() - max_listed) + " more";
  if (report.nonfinite == 1) return text;
  return text + "; " + std::to_string(report.nonfinite) + " steps were not finite, the first of them step " +
         std::to_string(first_fault_);
}

void Progress::on_evaluate(int64_t step, double epoch, double loss) {
  result_.eval_loss = loss;
  evaluated_at_ = step;
  const EvalReport report{.step = step, .epoch = epoch, .loss = loss, .seconds = seconds(Clock::now() - step_begin_)};
  for (TrainingCallback* callback : run_.callbacks) callback->on_evaluate(report, control_);
  logged_ += Clock::now() - step_begin_;  // evaluation does not count as training time
  step_begin_ = Clock::now();
}

void Progress::snapshot() {
  due_ = false;
  if (evaluated_at_ != result_.steps || !std::isfinite(*result_.eval_loss) ||
      (result_.best && result_.best->loss <= *result_.eval_loss))
    return;
  result_.best = {evaluated_at_, *result_.eval_loss};
}

StateDict Progress::state_dict() const {
  ScalarState out;
  out.put("steps", static_cast<double>(result_.steps));
  out.put("total_steps", static_cast<double>(total_));
  out.put("skipped", static_cast<double>(result_.skipped));
  out.put("nonfinite", static_cast<double>(result_.nonfinite));
  out.put("first_fault", static_cast<double>(first_fault_));
  out.put("tokens", static_cast<double>(result_.tokens));
  out.put("epochs", result_.epochs);
  out.put("loss_sum", loss_sum_);
  out.put("loss_since", loss_since_);
  out.put("steps_since", static_cast<double>(steps_since_));
  out.put("tokens_since", static_cast<double>(tokens_since_));
  out.put("seconds", seconds(Clock::now() - begin_));
  out.put("seconds_since", seconds(Clock::now() - logged_));
  if (due_) out.put("due", 1);
  if (learned_) out.put("learned", static_cast<double>(*learned_));
  if (result_.eval_loss) {
    out.put("eval_loss", *result_.eval_loss);
    out.put("evaluated_at", static_cast<double>(evaluated_at_));
  }
  if (result_.best) {
    out.put("best_step", static_cast<double>(result_.best->step));
    out.put("best_loss", result_.best->loss);
  }
  learning_.save(out);
  return out.state_dict();
}

void Progress::load_state_dict(const StateDict& state) {
  const ScalarState in(state);
  result_.steps = in.count("steps");
  if (result_.steps > total_)
    throw ConfigError("the checkpoint is of step " + std::to_string(result_.steps) + ", and the run now ends at " +
                      std::to_string(total_));
  if (in.has("eval_loss")) {
    result_.eval_loss = in.at("eval_loss");
    evaluated_at_ = in.count("evaluated_at");
  }
  if (const int64_t before = in.count("total_steps"); before != total_)
    check_schedule_unchanged(run_, result_.steps, before, total_, evaluated_at_);
  result_.skipped = in.count("skipped");
  result_.nonfinite = in.count("nonfinite");
  first_fault_ = in.count("first_fault");
  result_.tokens = in.count("tokens");
  result_.epochs = in.at("epochs");
  loss_sum_ = in.at("loss_sum");
  loss_since_ = in.at("loss_since");
  steps_since_ = in.count("steps_since");
  tokens_since_ = in.count("tokens_since");
  const auto before = [&](const char* name) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(in.at(name)));
  };
  begin_ -= before("seconds");
  logged_ -= before("seconds_since");
  due_ = in.has("due");
  if (in.has("learned")) {
    learned_ = static_cast<std::size_t>(in.count("learned"));
    if (*learned_ >= run_.data.examples.size())
      throw InputError("the checkpoint's progress names example " + std::to_string(*learned_) + " of " +
                       std::to_string(run_.data.examples.size()));
  }
  learning_.load(in);
  if (in.has("best_step")) result_.best = {in.count("best_step"), in.at("best_loss")};
}

TrainingResult Progress::result() const {
  TrainingResult result = result_;
  result.loss = loss_sum_ / static_cast<double>(std::max<int64_t>(result.steps - result.nonfinite, 1));
  result.seconds = seconds(Clock::now() - begin_);
  return result;
}

}  // namespace peft
