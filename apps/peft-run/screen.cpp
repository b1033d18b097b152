#include "screen.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

namespace {

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string figures(const peft::StepReport& r, double loss) {
  std::string text = format("loss %.4f  lr %.2e  grad %.3f  %s tok/s  mem %s of %s", loss, r.lr, r.grad_norm,
                            format_count(std::llround(r.tokens_per_second)).c_str(),
                            bytes_text(r.memory.allocated).c_str(), bytes_text(r.memory.reserved).c_str());
  if (r.skipped > 0) text += format("  skipped %lld", static_cast<long long>(r.skipped));
  return text + "  left " + time_text(r.seconds_left);
}

std::size_t terminal_width() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string bar(const peft::StepReport& r) {
  constexpr int64_t cells = 20;
  const int64_t full = r.step * cells / r.total_steps;
  std::string text = "[";
  for (int64_t i = 0; i < cells; ++i) text += i < full ? '#' : '.';
  return text + "] ";
}

}  // namespace

std::string bytes_text(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= uint64_t{1} << 30) return format("%.2f GiB", value / (1 << 30));
  if (bytes >= uint64_t{1} << 20) return format("%.1f MiB", value / (1 << 20));
  return format("%.1f KiB", value / 1024);
}

std::string time_text(double seconds) {
  const auto all = static_cast<long long>(std::llround(std::max(seconds, 0.0)));
  if (all >= 3600) return format("%lld:%02lld:%02lld", all / 3600, all / 60 % 60, all % 60);
  return format("%lld:%02lld", all / 60, all % 60);
}

Screen::Screen() : terminal_(isatty(STDOUT_FILENO) != 0) {}

void Screen::on_step_end(const peft::StepReport& r) {
  const std::string at = "step " + std::to_string(r.step) + "/" + std::to_string(r.total_steps);
  if (!terminal_) {
    if (r.logged) std::cout << at << format("  epoch %.2f  ", r.epoch) << figures(r, r.mean_loss) << std::endl;
    return;
  }
  std::string line = bar(r) + at + "  " + figures(r, r.loss);
  const std::size_t width = terminal_width() - 1;
  if (line.size() > width) line.resize(width);
  std::cout << "\r\x1b[K" << line << std::flush;
  open_ = true;
}

void Screen::on_nonfinite_step(const peft::NonFiniteStep& r) {
  close();
  std::cout << "step " << r.step << " skipped: " << r.what << ", on " << r.examples.front();
  if (r.examples.size() > 1) std::cout << " and " << r.examples.size() - 1 << " more";
  std::cout << "; " << r.nonfinite << " so far" << std::endl;
}

void Screen::on_evaluate(const peft::EvalReport& r) {
  close();
  std::cout << "step " << r.step
            << format("  epoch %.2f  eval loss %.4f  perplexity %.3f", r.epoch, r.loss, std::exp(r.loss)) << std::endl;
}

void Screen::close() {
  if (open_) std::cout << "\n";
  open_ = false;
}
