#include "peft/train/options.h"

#include <cmath>
#include <limits>

#include "peft/base/error.h"

namespace peft {

TrainingOptions read_training_options(Options& in) {
  TrainingOptions o;
  in.get_path("output_dir", o.output_dir, "folder that the adapter and the logs are written to")
      .require(!o.output_dir.empty(), "must be given");
  in.get("epochs", o.epochs, "passes over the data; fractions are allowed")
      .require(std::isfinite(o.epochs) && o.epochs > 0 && o.epochs <= 1e6, "must be above 0 and at most 1e6");
  in.get("max_steps", o.max_steps, "optimizer steps; takes the place of epochs")
      .require(!o.max_steps || *o.max_steps > 0, "must be positive");
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  const auto positive = [&](const char* key, int64_t& value, const char* help) {
    in.get(key, value, help).require(value > 0 && value <= most, "must be positive");
  };
  const auto not_negative = [&](const char* key, int64_t& value, const char* help) {
    in.get(key, value, help).require(value >= 0, "must be 0 or more");
  };
  positive("batch_size", o.batch_size, "examples of a micro-batch; with packing: rows of max_length tokens");
  positive("gradient_accumulation_steps", o.gradient_accumulation_steps, "micro-batches of one optimizer step");
  not_negative("seed", o.seed, "of the adapter's start, the data's order and dropout");
  positive("log_every", o.log_every, "steps between two lines of the log");
  not_negative("eval_every", o.eval_every, "steps between two evaluations; 0: only at the end");
  not_negative("save_every", o.save_every,
               "steps between two checkpoints, with one at the end; 0: none, unless a signal stops the run");
  in.get("save_total_limit", o.save_total_limit,
         "newest checkpoints that are kept, with load_best_model_at_end the best among them; one more until the end")
      .require(!o.save_total_limit || *o.save_total_limit > 0, "must be positive");
  in.get("load_best_model_at_end", o.load_best_model_at_end,
         "the result is the checkpoint of least evaluation loss, not the last step's adapter")
      .require(!o.load_best_model_at_end || (o.save_every > 0 && o.eval_every > 0 && o.save_every % o.eval_every == 0),
               "needs eval_every, and save_every to be a multiple of it");
  not_negative("max_nonfinite_steps", o.max_nonfinite_steps,
               "steps that may be skipped because loss or gradients are NaN or infinite; one more ends the run");
  in.get("device", o.device, "auto, cpu, cuda, cuda:1, mps, xpu");
  in.get("fused", o.fused, "false: every layer runs its own forward, as a check of the fused paths");
  in.get("profile", o.profile, "true: tell at the end where the steps' time went");
  in.get("overwrite_output_dir", o.overwrite_output_dir,
         "write over an adapter that output_dir holds already; its checkpoints go");
  return o;
}

}  // namespace peft
