// A fuzz program without libFuzzer:
//   fuzz_NAME [--executions N] [--seed S] [--current FILE] [--found FOLDER] FILE-OR-FOLDER...
// Reads each given file, then N mutations of them and of those mutations that reached new branches. An input must be
// accepted and pass the target's checks, or be refused with an InputError or ConfigError that names the file and has no
// control characters, within 5 s and 256 MiB and without a report from the sanitizers. FILE contains the length of the
// current input and the input.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <vector>

#include "coverage.h"
#include "peft/base/error.h"
#include "target.h"

// A single allocation of 256 MiB aborts the program. A small quarantine keeps memory use low.
extern "C" const char* __asan_default_options();
const char* __asan_default_options() {
  return "max_allocation_size_mb=256:quarantine_size_mb=16:hard_rss_limit_mb=1024:exitcode=77";
}
extern "C" const char* __ubsan_default_options();
const char* __ubsan_default_options() { return "print_stacktrace=1:exitcode=77"; }

namespace {

namespace fs = std::filesystem;
using namespace peft;
using fuzz::target;

constexpr std::size_t kMaxInput = 1 << 16, kMaxCorpus = 16 << 20, kMaxMessage = 1 << 18;  // bytes
constexpr long kMaxKilobytes = 256 << 10;

struct Settings {
  std::size_t executions = 200'000;
  uint64_t seed = 1;
  std::string current, found = ".";
  std::vector<std::string> inputs;
};

/// Ends the program if an input takes 5 s of CPU time, or 60 s of wall time, as it does if it waits for something.
void stop_hang(int) {
  constexpr char text[] = "finding: the input takes more than 5 s\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, sizeof text - 1);
  _exit(3);
}

void set_timer(time_t processor, time_t wall) {
  const itimerval by_processor{{0, 0}, {processor, 0}}, by_wall{{0, 0}, {wall, 0}};
  ::setitimer(ITIMER_PROF, &by_processor, nullptr);
  ::setitimer(ITIMER_REAL, &by_wall, nullptr);
}

/// What is wrong with an error message; "" if nothing is.
std::string message_fault(const std::string& message) {
  if (message.find(target.file) == message.npos) return "the message does not name the file";
  if (message.size() > kMaxMessage) return "the message has " + std::to_string(message.size()) + " bytes";
  std::string lines;
  std::istringstream stream(message);
  for (std::string line; std::getline(stream, line);)
    if (printable(line, line.size() + 1) != line) return "the message contains a control character";
  return "";
}

class Runner {
 public:
  explicit Runner(const Settings& settings) : settings_(settings) {
    if (settings.current.empty()) return;
    current_ = ::open(settings.current.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (current_ < 0) throw std::runtime_error(settings.current + ": " + std::strerror(errno));
  }

  struct Outcome {
    bool accepted;
    bool is_new;  ///< reached a branch that no earlier input reached
  };
  Outcome run(const std::string& bytes) {
    save_current(bytes);
    fuzz::begin_coverage();
    set_timer(5, 60);
    std::string fault;
    bool accepted = false;
    try {
      target.run(bytes);
      accepted = true;
    } catch (const InputError& error) {
      fault = message_fault(error.what());
    } catch (const ConfigError& error) {
      fault = message_fault(error.what());
    } catch (const std::exception& error) {
      fault = std::string("thrown: ") + error.what();
    }
    set_timer(0, 0);
    ++runs_;
    accepted_ += accepted;
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    peak_kilobytes_ = usage.ru_maxrss;
    if (peak_kilobytes_ > kMaxKilobytes) fault = std::to_string(peak_kilobytes_ >> 10) + " MiB of memory";
    if (!fault.empty()) stop(bytes, fault);
    return {accepted, fuzz::is_new_coverage()};
  }

  void print_summary(std::size_t corpus) const {
    std::cout << target.name << ": " << runs_ << " executions, seed " << settings_.seed << ", "
              << accepted_ * 100 / runs_ << " % accepted, " << fuzz::coverage() << " branches, " << corpus
              << " inputs in the corpus, peak " << (peak_kilobytes_ >> 10) << " MiB, no findings" << std::endl;
  }

 private:
  void save_current(const std::string& bytes) const {
    if (current_ < 0) return;
    uint64_t size = bytes.size();
    const iovec parts[] = {{&size, sizeof size}, {const_cast<char*>(bytes.data()), bytes.size()}};
    if (::pwritev(current_, parts, 2, 0) != static_cast<ssize_t>(sizeof size + size))
      throw std::runtime_error(settings_.current + ": cannot be written");
  }

  [[noreturn]] void stop(const std::string& bytes, const std::string& fault) const {
    const fs::path file = fs::path(settings_.found) / (std::string(target.name) + "-" + std::to_string(runs_));
    std::ofstream(file, std::ios::binary) << bytes;
    std::cerr << "finding: " << fault << "\ninput: " << file.string() << std::endl;
    std::exit(2);
  }

  const Settings& settings_;
  int current_ = -1;
  std::size_t runs_ = 0, accepted_ = 0;
  long peak_kilobytes_ = 0;
};

Settings read_arguments(int count, char** arguments) {
  Settings settings;
  for (int i = 1; i < count; ++i) {
    const std::string word = arguments[i];
    const auto value = [&] {
      return i + 1 < count ? std::string(arguments[++i]) : throw std::runtime_error(word + "?");
    };
    if (word == "--executions")
      settings.executions = std::stoull(value());
    else if (word == "--seed")
      settings.seed = std::stoull(value());
    else if (word == "--current")
      settings.current = value();
    else if (word == "--found")
      settings.found = value();
    else
      settings.inputs.push_back(word);
  }
  return settings;
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Reads files, and the files in folders in the order of their names.
std::vector<std::string> read_inputs(const std::vector<std::string>& paths) {
  std::vector<std::string> inputs;
  for (const std::string& path : paths) {
    if (!fs::is_directory(path)) {
      inputs.push_back(read_file(path));
      continue;
    }
    std::vector<fs::path> files(fs::directory_iterator(path), fs::directory_iterator{});
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) inputs.push_back(read_file(file));
  }
  if (inputs.empty()) throw std::runtime_error("no inputs to start with");
  return inputs;
}

/// Inputs to mutate. Three of four are accepted ones, because most mutations of refused ones are refused at once.
class Corpus {
 public:
  void add(std::string input, bool accepted) {
    if ((bytes_ += input.size()) <= kMaxCorpus) (accepted ? accepted_ : refused_).push_back(std::move(input));
  }
  const std::string& pick(fuzz::Random& random) const {
    const bool from_refused = accepted_.empty() || (!refused_.empty() && random.one_in(4));
    return random.pick(from_refused ? refused_ : accepted_);
  }
  std::size_t size() const { return accepted_.size() + refused_.size(); }

 private:
  std::vector<std::string> accepted_, refused_;
  std::size_t bytes_ = 0;
};

void fuzz_all(const Settings& settings) {
  Runner runner(settings);
  Corpus corpus;
  for (const std::string& input : read_inputs(settings.inputs)) corpus.add(input, runner.run(input).accepted);
  fuzz::Random random(settings.seed);
  for (std::size_t i = 0; i < settings.executions; ++i) {
    std::string input = corpus.pick(random);
    for (std::size_t changes = 1 + random.below(random.one_in(2) ? 1 : 5); changes > 0; --changes)
      input = target.mutate(input, corpus.pick(random), random);
    if (input.size() > kMaxInput) input.resize(kMaxInput);
    const Runner::Outcome outcome = runner.run(input);
    if (outcome.is_new) corpus.add(std::move(input), outcome.accepted);
  }
  runner.print_summary(corpus.size());
}

}  // namespace

int main(int count, char** arguments) {
  std::signal(SIGPROF, stop_hang);
  std::signal(SIGALRM, stop_hang);
  try {
    fuzz_all(read_arguments(count, arguments));
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
