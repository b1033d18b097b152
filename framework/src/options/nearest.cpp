#include <algorithm>
#include <cctype>

#include "peft/options/options.h"

namespace peft {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

/// Number of edits that turn a into b: insert, delete, replace, swap two neighbors (optimal string alignment).
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string nearest(std::string_view word, const StringList& known) {
  constexpr std::size_t max_length = 100;  // the cost grows with the square of the length
  if (word.empty() || word.size() > max_length) return "";
  const std::string wanted = lower(word);
  const auto common_prefix = [&](const std::string& candidate) {
    return std::mismatch(wanted.begin(), wanted.end(), candidate.begin(), candidate.end()).first - wanted.begin();
  };
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : known) {
    if (candidate.size() > max_length) continue;
    const std::string lower_candidate = lower(candidate);
    const std::size_t edits = distance(wanted, lower_candidate);
    const bool is_nearer = edits < best_distance || (!best.empty() && edits == best_distance &&
                                                     common_prefix(lower_candidate) > common_prefix(lower(best)));
    if (is_nearer && edits < wanted.size()) best = candidate, best_distance = edits;
  }
  return best;
}

}  // namespace peft
