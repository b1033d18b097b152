#include "console_reporter.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <string_view>

#include "peft/base/bytes.h"
#include "peft/base/error.h"
#include "peft/base/format_count.h"
#include "peft/train/train.h"

namespace {

using peft::format_bytes;

constexpr const char* kClearLine = "\r\x1b[K";

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

/// 3723 as 1:02:03.
std::string format_duration(double seconds) {
  const auto all = static_cast<long long>(std::llround(std::max(seconds, 0.0)));
  if (all >= 3600) return format("%lld:%02lld:%02lld", all / 3600, all / 60 % 60, all % 60);
  return format("%lld:%02lld", all / 60, all % 60);
}

std::string figures(const peft::StepReport& r, double loss) {
  std::string text = format("loss %.4f  lr %.2e  grad %.3f  %s tok/s  mem %s of %s", loss, r.lr, r.grad_norm,
                            peft::format_count(std::llround(r.tokens_per_second)).c_str(),
                            format_bytes(r.memory.allocated).c_str(), format_bytes(r.memory.reserved).c_str());
  if (r.skipped > 0) text += format("  skipped %lld", static_cast<long long>(r.skipped));
  return text + "  left " + format_duration(r.seconds_left);
}

std::size_t terminal_width() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// "[######....] ".
std::string bar(const peft::StepReport& r, int64_t cells) {
  const int64_t full = r.step * cells / r.total_steps;
  return "[" + std::string(full, '#') + std::string(cells - full, '.') + "] ";
}

/// What of a step fits into `width` columns: where the run is, the time left and the memory first.
std::string progress_line(const peft::StepReport& r, std::size_t width) {
  struct Part {
    std::size_t rank;  ///< the most important one is 0
    std::string text;
  };
  const Part parts[] = {
      {0, std::to_string(r.step) + "/" + std::to_string(r.total_steps)},
      {3, format("loss %.4f", r.loss)},
      {4, peft::format_count(std::llround(r.tokens_per_second)) + " tok/s"},
      {2, "mem " + format_bytes(r.memory.allocated)},
      {1, "left " + format_duration(r.seconds_left)},
  };
  constexpr std::string_view gap = "  ";
  std::size_t used = 0, shown = 0;  // the parts with a rank below `shown`
  for (bool fits = true; fits && shown < std::size(parts);) {
    const auto& next =
        *std::find_if(std::begin(parts), std::end(parts), [&](const Part& p) { return p.rank == shown; });
    fits = used + next.text.size() <= width;
    if (fits) used += next.text.size() + gap.size(), ++shown;
  }
  std::string line;
  for (const Part& part : parts)
    if (part.rank < shown) line += (line.empty() ? "" : std::string(gap)) + part.text;
  constexpr std::size_t frame = 3, min_cells = 5, max_cells = 30;
  const std::size_t rest = width - std::min(width, line.size() + frame);
  return rest < min_cells ? line : bar(r, static_cast<int64_t>(std::min(rest, max_cells))) + line;
}

/// Where the time of the steps went, as shares.
void print_profile(const peft::TrainingResult& result) {
  const double seconds = result.seconds_after_first;
  if (result.profile.empty() || seconds <= 0) return;
  double rest = seconds;
  const auto print_share = [&](const std::string& part, double spent) {
    std::cout << " " << part << " " << std::lround(1000 * spent / seconds) / 10.0 << " %";
  };
  std::cout << "time of the steps after the first:";
  for (const auto& [part, spent] : result.profile) {
    print_share(part, spent);
    std::cout << ",";
    rest -= spent;
  }
  print_share("other", rest);
  std::cout << "\n";
}

/// The peak of each phase, and the components at the overall peak.
void print_memory(const peft::MemoryMeter& meter) {
  std::cout << "peak memory of each phase, allocated / reserved:";
  for (std::size_t i = 1; i < peft::kMemoryPhases; ++i) {
    const auto phase = static_cast<peft::MemoryPhase>(i);
    const peft::MemoryMeter::Peak peak = meter.peak(phase);
    if (peak.reserved > 0)
      std::cout << "\n  " << name(phase) << ": " << format_bytes(peak.allocated) << " / "
                << format_bytes(peak.reserved);
  }
  std::cout << "\nat the peak:";
  const peft::MemoryMeter::Peak peak = meter.peak();
  for (std::size_t i = 0; i < peft::kMemoryComponents; ++i)
    if (peak.components[i] > 0)
      std::cout << " " << name(static_cast<peft::MemoryComponent>(i)) << " " << format_bytes(peak.components[i]);
  std::cout << "; resident " << format_bytes(peft::peak_resident_bytes()) << "\n";
}

/// What the run has checked. What it warns of comes as a message.
void print_verification(const peft::TrainingResult& result) {
  const peft::LearningResult& learning = result.learning;
  std::cout << "verified: "
            << (learning.problem.empty() ? "only the adapter learned: " : "only the adapter was trained: ")
            << learning.text() << ", nothing else had a gradient, the base is bit-identical (XXH3 " << result.base_hash
            << ")\n";
}

void print_adapters(const peft::StringList& folders) {
  for (const std::string& folder : folders) {
    const auto bytes = std::filesystem::file_size(std::filesystem::path(folder) / "adapter_model.safetensors");
    std::cout << "adapter: " << peft::printable_path(folder) << " (" << format_bytes(bytes) << ")" << std::endl;
  }
}

}  // namespace

ConsoleReporter::ConsoleReporter() : is_terminal_(isatty(STDOUT_FILENO) != 0) {}

void ConsoleReporter::on_run_begin(const peft::RunStart& start) {
  for (const std::string& line : start.description) std::cout << line << "\n";
  std::cout << std::flush;
}

void ConsoleReporter::on_step_end(const peft::StepReport& r, peft::TrainingControl&) {
  if (r.logged) {
    end_bar();
    std::cout << "step " << r.step << "/" << r.total_steps << format("  epoch %.2f  ", r.epoch)
              << figures(r, r.mean_loss) << std::endl;
  }
  if (!is_terminal_ || r.step == r.total_steps) return;
  // One column stays free: after the last one some terminals begin a new line.
  std::cout << kClearLine << progress_line(r, terminal_width() - 1) << std::flush;
  bar_is_open_ = true;
}

void ConsoleReporter::on_nonfinite_step(const peft::NonFiniteStep& r, peft::TrainingControl&) {
  end_bar();
  std::cout << "step " << r.step << " skipped: " << r.what << ", on " << r.examples.front();
  if (r.examples.size() > 1) std::cout << " and " << r.examples.size() - 1 << " more";
  std::cout << "; " << r.nonfinite << " so far" << std::endl;
}

void ConsoleReporter::on_evaluate(const peft::EvalReport& r, peft::TrainingControl&) {
  end_bar();
  std::cout << "step " << r.step
            << format("  epoch %.2f  eval loss %.4f  perplexity %.3f", r.epoch, r.loss, std::exp(r.loss)) << std::endl;
}

void ConsoleReporter::on_run_end(const peft::RunEnd& end) {
  end_bar();
  checkpoint_ = peft::printable_path(end.checkpoint);
  adapters_ = end.adapters;
  can_merge_ = end.can_merge;
  const peft::TrainingResult& result = end.result;
  if (result.stopped) return;
  std::cout << "trained " << result.steps << " steps in " << format_duration(result.seconds) << ", mean loss "
            << result.loss << "\n";
  print_verification(result);
  if (result.skipped > 0)
    std::cout << result.skipped << " steps were skipped because their gradients overflowed the loss scale\n";
  if (result.nonfinite > 0)
    std::cout << result.nonfinite << " steps were skipped because their loss or gradients were not finite\n";
  print_profile(result);
  print_memory(end.memory);
  print_adapters(end.adapters);
}

void ConsoleReporter::on_message(peft::MessageLevel level, const std::string& text) {
  end_bar();
  if (level == peft::MessageLevel::warning)
    std::cerr << "warning: " << text << "\n";
  else
    std::cout << text << std::endl;
}

void ConsoleReporter::end_bar() {
  if (bar_is_open_) std::cout << kClearLine << std::flush;
  bar_is_open_ = false;
}
