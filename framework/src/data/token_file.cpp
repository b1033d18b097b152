// A header, then flat arrays that fill the file to its end: for each example where it ends, its line, file and record;
// then all tokens, as int32, one that the model must say as its complement.
#include "data/token_file.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

#include "base/digest.h"
#include "files/atomic_file.h"
#include "files/mapped_file.h"
#include "files/trusted_path.h"
#include "peft/base/error.h"

namespace peft::data {

namespace {

constexpr std::string_view magic = "PEFTTOK2";

struct Header {
  char magic[8];
  char digest[32];  ///< of everything after it
  char key[32];
  char format[24];
  uint64_t examples, tokens;
  int64_t truncated, truncated_tokens, skipped, empty_answers, cut_thinking;
};
static_assert(sizeof(Header) == 152);
constexpr std::size_t signed_from = offsetof(Header, key);

struct Origin {
  uint64_t end;  ///< in tokens
  int64_t line;
  int64_t file;
  int64_t record;
};

uint64_t file_size(uint64_t examples, uint64_t tokens) {
  return sizeof(Header) + examples * sizeof(Origin) + tokens * sizeof(int32_t);
}

template <std::size_t size>
void put(char (&field)[size], std::string_view text) {
  std::copy_n(text.begin(), std::min(size, text.size()), field);
}

template <class Value>
std::string_view bytes_of(const std::vector<Value>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Value)};
}

/// The file's bytes where its magic, key, size and digest are right; else nothing.
std::span<const std::byte> trusted(std::span<const std::byte> bytes, const std::string& key, Header& header) {
  if (bytes.size() < sizeof header) return {};
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::string_view(header.magic, 8) != magic || std::string_view(header.key, 32) != key) return {};
  // Neither product nor their sum can overflow once both counts fit the file.
  if (header.examples > bytes.size() / sizeof(Origin) || header.tokens > bytes.size() / sizeof(int32_t)) return {};
  if (file_size(header.examples, header.tokens) != bytes.size()) return {};
  Digest digest;
  digest.add(bytes.data() + signed_from, bytes.size() - signed_from);
  if (std::string_view(header.digest, 32) != digest.hex()) return {};
  return bytes;
}

/// False where the arrays contradict each other.
bool read_examples(std::span<const std::byte> bytes, const Header& header, int64_t files, Dataset& set) {
  const std::byte* tokens = bytes.data() + sizeof header + header.examples * sizeof(Origin);
  set.examples.reserve(header.examples);
  uint64_t begin = 0;
  int64_t record = 0;
  for (uint64_t i = 0; i < header.examples; ++i) {
    Origin origin{};
    std::memcpy(&origin, bytes.data() + sizeof header + i * sizeof origin, sizeof origin);
    if (origin.end <= begin || origin.end > header.tokens || origin.line < 1) return false;
    if (origin.file < 0 || origin.file >= files || origin.record < record) return false;
    Example example;
    example.file = origin.file, example.line = origin.line, example.record = record = origin.record;
    example.ids.reserve(origin.end - begin), example.labels.reserve(origin.end - begin);
    for (; begin < origin.end; ++begin) {
      int32_t token = 0;
      std::memcpy(&token, tokens + begin * sizeof token, sizeof token);
      example.ids.push_back(token < 0 ? ~token : token);
      example.labels.push_back(token < 0 ? ~token : ignored_label);
    }
    set.add(std::move(example));
  }
  return begin == header.tokens;
}

}  // namespace

uint64_t write_token_file(const std::string& path, const std::string& key, const Dataset& set, uint64_t limit) {
  Header header{};
  header.examples = set.examples.size(), header.tokens = static_cast<uint64_t>(set.tokens);
  const uint64_t size = file_size(header.examples, header.tokens);
  if (size > limit) return 0;
  put(header.magic, magic), put(header.key, key), put(header.format, set.format);
  header.truncated = set.truncated, header.truncated_tokens = set.truncated_tokens, header.skipped = set.skipped;
  header.empty_answers = set.empty_answers;
  header.cut_thinking = set.cut_thinking;

  std::vector<Origin> origins;
  std::vector<int32_t> tokens;
  tokens.reserve(header.tokens);
  for (const Example& example : set.examples) {
    for (std::size_t i = 0; i < example.ids.size(); ++i) {
      const auto id = static_cast<int32_t>(example.ids[i]);
      tokens.push_back(example.labels[i] == ignored_label ? id : ~id);
    }
    origins.push_back({tokens.size(), example.line, example.file, example.record});
  }
  Digest digest;
  digest.add(header.key, sizeof header - signed_from);
  digest.add(bytes_of(origins).data(), bytes_of(origins).size());
  digest.add(bytes_of(tokens).data(), bytes_of(tokens).size());
  put(header.digest, digest.hex());

  AtomicFile file(path, 0600);
  file.write(&header, sizeof header);
  file.write(bytes_of(origins).data(), bytes_of(origins).size());
  file.write(bytes_of(tokens).data(), bytes_of(tokens).size());
  file.commit();
  return size;
}

std::optional<Dataset> read_token_file(const std::string& path, const std::string& key, std::size_t files) {
  std::shared_ptr<const MappedFile> file;
  try {
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
    if (!S_ISREG(status.st_mode)) return std::nullopt;
    detail::check_owner(path, status);
    file = MappedFile::open(path);
  } catch (const detail::UntrustedPath&) {
    return std::nullopt;
  } catch (const InputError&) {
    return std::nullopt;
  }
  Header header{};
  const auto bytes = trusted(file->bytes(), key, header);
  Dataset set;
  if (bytes.empty() || !read_examples(bytes, header, static_cast<int64_t>(files), set)) return std::nullopt;
  set.format.assign(header.format, strnlen(header.format, sizeof header.format));
  set.truncated = header.truncated, set.truncated_tokens = header.truncated_tokens, set.skipped = header.skipped;
  set.empty_answers = header.empty_answers, set.num_read += header.skipped;
  set.cut_thinking = header.cut_thinking;
  return set;
}

}  // namespace peft::data
