#include "peft/train/options.h"

#include <cmath>
#include <limits>

#include "peft/base/error.h"

namespace peft {

TrainingOptions read_training_options(Options& in) {
  TrainingOptions o;
  in.get_path("output_dir", o.output_dir, "folder for the adapter and the logs")
      .require(!o.output_dir.empty(), "must be given");
  in.get("epochs", o.epochs, "passes over the data; may be a fraction")
      .require(std::isfinite(o.epochs) && o.epochs > 0 && o.epochs <= 1e6, "must be above 0 and at most 1e6");
  constexpr int64_t max_steps = 1'000'000'000'000;
  in.get("max_steps", o.max_steps, "optimizer steps; overrides epochs")
      .require(!o.max_steps || *o.max_steps > 0, "must be positive")
      .require(!o.max_steps || *o.max_steps <= max_steps, "must be at most 1e12");
  constexpr int64_t max_count = std::numeric_limits<int32_t>::max();
  const auto positive = [&](const char* key, int64_t& value, const char* help) {
    in.get(key, value, help).require(value > 0 && value <= max_count, "must be positive");
  };
  const auto not_negative = [&](const char* key, int64_t& value, const char* help) {
    in.get(key, value, help).require(value >= 0, "must be 0 or more");
  };
  positive("batch_size", o.batch_size, "examples per micro-batch; with packing: rows of max_length tokens");
  positive("gradient_accumulation_steps", o.gradient_accumulation_steps, "micro-batches per optimizer step");
  not_negative("seed", o.seed, "random seed of the initial values, the order of the data, and dropout");
  positive("log_every", o.log_every, "steps between log lines");
  not_negative("eval_every", o.eval_every, "steps between evaluations; 0: only at the end");
  not_negative("save_every", o.save_every, "steps between checkpoints, with one at the end; 0: see save_every_minutes");
  if (o.save_every > 0) o.save_every_minutes = 0;
  constexpr double max_minutes = 1e6;
  in.get("save_every_minutes", o.save_every_minutes,
         "without save_every: minutes between checkpoints, of which the newest two are kept until the adapter is "
         "written; 0: none, unless a signal stops the run")
      .require(o.save_every_minutes >= 0 && o.save_every_minutes <= max_minutes, "must be from 0 to 1e6")
      .require(o.save_every <= 0 || o.save_every_minutes == 0, "must be 0 or absent with save_every; set one of them");
  in.get("save_total_limit", o.save_total_limit,
         "maximum number of checkpoints, including the best one with load_best_model_at_end; one more during training")
      .require(!o.save_total_limit || *o.save_total_limit > 0, "must be positive");
  in.get("load_best_model_at_end", o.load_best_model_at_end,
         "the result is the checkpoint with the lowest evaluation loss instead of the last adapter")
      .require(!o.load_best_model_at_end || (o.save_every > 0 && o.eval_every > 0 && o.save_every % o.eval_every == 0),
               "needs eval_every, and save_every to be a multiple of it");
  not_negative("max_nonfinite_steps", o.max_nonfinite_steps,
               "maximum number of steps skipped because of a non-finite loss or gradient; one more ends the run");
  in.get("device", o.device, "auto, cpu, cuda, cuda:1, mps, xpu");
  in.get("fused", o.fused, "false: every layer runs its own forward, to check the fused paths");
  in.get("profile", o.profile, "true: report at the end how the time of the steps was spent");
  in.get("overwrite_output_dir", o.overwrite_output_dir,
         "overwrite an adapter in output_dir and delete its checkpoints");
  return o;
}

}  // namespace peft
