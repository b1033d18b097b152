// Shows that the token cache returns the same examples as the data; that it uses only an intact file made from exactly
// these data, tokenizer and options, which no other user can have written; that a run without write access still
// trains; and that it respects its size limit.
#include "peft/data/token_cache.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "support/test.h"

using namespace peft;
namespace fs = std::filesystem;

namespace {

/// A pretrained model without weights whose tokens are bytes; <e> is the EOS token.
class Words final : public PretrainedModel {
 public:
  explicit Words(const std::string& chat_template = "", const std::string& further = "") {
    nlohmann::json vocabulary = {{"<e>", 0}};
    for (int c = 'a'; c <= 'z'; ++c) vocabulary[std::string(1, static_cast<char>(c))] = c;
    if (!further.empty()) vocabulary[further] = 200;
    tokenizer_ = nlohmann::json{{"version", "1.0"}, {"model", {{"type", "BPE"}, {"vocab", vocabulary}}}};
    tokenizer_["model"]["merges"] = nlohmann::json::array();
    config_["eos_token_id"] = 0;
    if (!chat_template.empty()) tokenizer_config_["chat_template"] = chat_template;
  }
  const std::string& path() const override { return path_; }
  const nlohmann::json& config() const override { return config_; }
  std::string tokenizer_json() const override { return ++built, tokenizer_.dump(); }
  std::string tokenizer_bytes() const override { return tokenizer_.dump(); }
  const nlohmann::json& tokenizer_config() const override { return tokenizer_config_; }
  const nlohmann::json& generation_config() const override { return generation_config_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  void read(const StoredTensor&, float*) const override {}
  bool is_direct(const StoredTensor&) const override { return false; }

  mutable int built = 0;

 private:
  std::string path_ = "words";
  nlohmann::json tokenizer_, config_, tokenizer_config_ = nlohmann::json::object(),
                                      generation_config_ = nlohmann::json::object();
  std::vector<StoredTensor> tensors_;
};

struct Folder {
  fs::path path = fs::temp_directory_path() / ("peft_tokens_" + std::to_string(::getpid()));
  Folder() {
    fs::create_directories(path);
    fs::permissions(path, fs::perms::owner_all);
  }
  ~Folder() { fs::remove_all(path); }
  std::string put(const std::string& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary) << bytes;
    return (path / name).string();
  }
  std::string cache() const { return (path / "cache").string(); }
  std::vector<fs::path> kept() const {
    if (!fs::exists(cache())) return {};
    std::vector<fs::path> all;
    for (const auto& entry : fs::directory_iterator(cache())) all.push_back(entry.path());
    return all;
  }
};

const std::string records =
    "{\"prompt\":\"abc\",\"completion\":\"de\"}\n\n{\"prompt\":\"abcdefgh\",\"completion\":\"x\"}\n"
    "{\"prompt\":\"b\",\"completion\":\"cdefghijkl\"}\n{\"prompt\":\"b\",\"completion\":\"\"}\n";

DataOptions short_examples() {
  DataOptions options;
  options.max_length = 8;
  return options;
}

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void check_same(const Dataset& one, const Dataset& other) {
  REQUIRE(one.examples.size() == other.examples.size());
  for (std::size_t i = 0; i < one.examples.size(); ++i) {
    CHECK(one.examples[i].ids == other.examples[i].ids);
    CHECK(one.examples[i].labels == other.examples[i].labels);
    CHECK(one.source(one.examples[i]) == other.source(other.examples[i]));
    CHECK(one.examples[i].record == other.examples[i].record);
  }
  CHECK(one.format == other.format);
  CHECK(one.truncated == other.truncated);
  CHECK(one.truncated_tokens == other.truncated_tokens);
  CHECK(one.skipped == other.skipped);
  CHECK(one.empty_answers == other.empty_answers);
  CHECK(one.num_read == other.num_read);
  CHECK(one.cut_thinking == other.cut_thinking);
  CHECK(one.tokens == other.tokens);
  CHECK(one.num_target_tokens == other.num_target_tokens);
}

}  // namespace

TEST_CASE("a second run reads the same examples without a tokenizer") {
  const Folder folder;
  const StringList files = {folder.put("x.jsonl", records),
                            folder.put("y.jsonl", "{\"prompt\":\"a\",\"completion\":\"b\"}")};
  const auto words = std::make_shared<Words>();
  const TokenCache cache(folder.cache());
  const Dataset plain = load_dataset(files, short_examples(), load_text(*words));
  CHECK(plain.skipped == 1);
  CHECK(plain.truncated == 2);
  CHECK(plain.empty_answers == 1);
  CHECK(plain.num_read == 5);
  const int built = words->built;

  const Dataset fresh = cache.load(files, short_examples(), LazyText(words));
  CHECK_FALSE(fresh.cached);
  CHECK(fresh.cache_error.empty());
  CHECK(words->built == built + 1);
  const Dataset again = cache.load(files, short_examples(), LazyText(words));
  CHECK(again.cached);
  CHECK(words->built == built + 1);
  check_same(fresh, plain);
  check_same(again, plain);
  CHECK(again.source(again.examples.back()) == files[1] + ":1");
}

TEST_CASE("another tokenizer, template, option or file is another entry") {
  const Folder folder;
  const std::string file = folder.put("x.jsonl", records);
  const TokenCache cache(folder.cache());
  const auto load = [&](const std::string& path, const DataOptions& options, const std::shared_ptr<Words>& words) {
    return cache.load({path}, options, LazyText(words)).cached;
  };
  const auto words = std::make_shared<Words>();
  CHECK_FALSE(load(file, short_examples(), words));
  CHECK(load(file, short_examples(), words));
  CHECK(load(folder.put("moved.jsonl", records), short_examples(), words));

  CHECK_FALSE(load(file, short_examples(), std::make_shared<Words>("", "A")));
  CHECK_FALSE(load(file, short_examples(), std::make_shared<Words>("{{ messages[0].content }}")));
  CHECK_FALSE(load(file, DataOptions{}, words));
  DataOptions named = short_examples();
  named.format = "prompt_completion";
  CHECK_FALSE(load(file, named, words));
  named.system = "be";
  CHECK_FALSE(load(file, named, words));
  CHECK_FALSE(
      load(folder.put("x.jsonl", records + "{\"prompt\":\"a\",\"completion\":\"b\"}"), short_examples(), words));
  CHECK(folder.kept().size() == 7);
  CHECK_THROWS_AS(load(folder.put("x.csv", records), short_examples(), words), InputError);
}

TEST_CASE("a corrupt file is ignored and replaced") {
  const Folder folder;
  const StringList files = {folder.put("x.jsonl", records)};
  const auto words = std::make_shared<Words>();
  const TokenCache cache(folder.cache());
  const auto load = [&] { return cache.load(files, short_examples(), LazyText(words)); };
  const Dataset fresh = load();
  const fs::path kept = folder.kept().at(0);
  const std::string intact = bytes_of(kept);
  const auto refused = [&](const std::string& damaged) {
    std::ofstream(kept, std::ios::binary | std::ios::trunc) << damaged;
    const Dataset reloaded = load();
    CHECK_FALSE(reloaded.cached);
    check_same(reloaded, fresh);
    CHECK(bytes_of(kept) == intact);
  };
  for (std::size_t at = 0; at < intact.size(); at += 3) {
    INFO("byte " << at);
    std::string damaged = intact;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x41);
    refused(damaged);
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{143}, std::size_t{144}, intact.size() - 1})
    refused(intact.substr(0, size));
  refused(intact + "x");
  refused("[1, 2, 3]");
  CHECK(load().cached);
}

TEST_CASE("without write access to the cache the tokens are still read, and the reason is reported") {
  const Folder folder;
  const StringList files = {folder.put("x.jsonl", records)};
  const auto words = std::make_shared<Words>();
  const Dataset set = TokenCache(folder.put("file", "") + "/cache").load(files, short_examples(), LazyText(words));
  CHECK(set.examples.size() == 3);
  CHECK(set.cache_error.find("file/cache") != std::string::npos);
  const Dataset none = TokenCache("").load(files, short_examples(), LazyText(words));
  CHECK(none.cache_error.empty());
  CHECK_FALSE(none.cached);
}

TEST_CASE("a folder or file that another user could have written is not trusted") {
  const Folder folder;
  const StringList files = {folder.put("x.jsonl", records)};
  const auto words = std::make_shared<Words>();
  const std::string above = (folder.path / "new" / "folders").string();
  const auto load = [&] { return TokenCache(above + "/cache").load(files, short_examples(), LazyText(words)); };
  const mode_t before = ::umask(0);
  CHECK_FALSE(load().cached);
  ::umask(before);
  CHECK(load().cached);
  const auto mode = [](const fs::path& path) { return fs::status(path).permissions(); };
  for (const std::string& made : {folder.path.string() + "/new", above, above + "/cache"})
    CHECK(mode(made) == fs::perms::owner_all);
  const fs::path kept = fs::directory_iterator(above + "/cache")->path();
  CHECK(mode(kept) == (fs::perms::owner_read | fs::perms::owner_write));

  // Only root can give files to a group that it is not in; a user's own may write.
  const auto give_to_a_group = [](const fs::path& path) {
    if (::geteuid() == 0) REQUIRE(::chown(path.c_str(), static_cast<uid_t>(-1), 12345) == 0);
  };
  for (const std::string& place : {above + "/cache", above}) give_to_a_group(place);
  for (const fs::perms open : {fs::perms::group_write, fs::perms::others_write}) {
    if (open == fs::perms::group_write && ::geteuid() != 0) continue;
    give_to_a_group(kept);
    fs::permissions(kept, open, fs::perm_options::add);
    CHECK_FALSE(load().cached);
    CHECK(load().cached);  // written again
    for (const std::string& place : {above + "/cache", above}) {
      fs::permissions(place, open, fs::perm_options::add);
      const Dataset set = load();
      CHECK_FALSE(set.cached);
      CHECK(set.examples.size() == 3);
      CHECK(set.cache_error.find("users other than its owner can write") != std::string::npos);
      fs::permissions(place, open, fs::perm_options::remove);
      CHECK(load().cached);
    }
  }
  const std::string bytes = bytes_of(kept);
  fs::remove(kept);
  fs::create_symlink(folder.put("elsewhere", bytes), kept);
  CHECK_FALSE(load().cached);
  CHECK(load().cached);
  if (::geteuid() != 0) return;  // only root can give files away
  REQUIRE(::chown(kept.c_str(), 12345, 12345) == 0);
  CHECK_FALSE(load().cached);
  CHECK(load().cached);
  REQUIRE(::chown((above + "/cache").c_str(), 12345, 12345) == 0);
  CHECK(load().cache_error.find("belongs to another user (uid 12345)") != std::string::npos);
}

TEST_CASE("a file that is too large is refused before it is read") {
  const Folder folder;
  const std::string large = folder.put("large.jsonl", records);
  fs::resize_file(large, uint64_t{5} << 30);  // sparse
  const auto words = std::make_shared<Words>();
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& cache : {folder.cache(), std::string()}) try {
      TokenCache(cache).load({folder.put("x.jsonl", records), large}, short_examples(), LazyText(words));
      FAIL("not refused");
    } catch (const InputError& error) {
      CHECK(std::string(error.what()) ==
            large + ": has 5.00 GiB, but a data file can have 4.00 GiB; split it and list the parts");
    }
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(1));
  CHECK(words->built == 0);
}

TEST_CASE("the least recently used files are removed beyond the limit") {
  const Folder folder;
  const auto words = std::make_shared<Words>();
  const auto file = [&](char name) {
    const std::string record = std::string("{\"prompt\":\"a\",\"completion\":\"") + name + "\"}";
    return StringList{folder.put(std::string(1, name) + ".jsonl", record)};
  };
  const auto load = [&](char name, uint64_t limit) {
    return TokenCache(folder.cache(), limit).load(file(name), short_examples(), LazyText(words)).cached;
  };
  load('b', 1000);
  const uint64_t size = fs::file_size(folder.kept().at(0));
  std::ofstream(fs::path(folder.cache()) / "notes.txt") << "not ours";
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(2);
  fs::last_write_time(folder.kept().at(0).filename() == "notes.txt" ? folder.kept().at(1) : folder.kept().at(0), old);
  const std::vector<fs::path> first = folder.kept();
  load('c', 2 * size);
  for (const fs::path& path : folder.kept())
    if (std::find(first.begin(), first.end(), path) == first.end())
      fs::last_write_time(path, old - std::chrono::hours(1));
  CHECK(load('c', 2 * size));  // used again, and so younger than b
  CHECK_FALSE(load('d', 2 * size));
  CHECK(load('c', 2 * size));
  CHECK(load('d', 2 * size));
  CHECK_FALSE(load('b', size - 1));  // was removed; larger than the limit it is not kept at all
  CHECK(load('d', 2 * size));
  CHECK(fs::exists(fs::path(folder.cache()) / "notes.txt"));
}

TEST_CASE("processes can write the same entry at the same time") {
  const Folder folder;
  const StringList files = {folder.put("x.jsonl", records)};
  const auto words = std::make_shared<Words>();
  TokenCache(folder.cache()).load(files, short_examples(), LazyText(words));
  const fs::path kept = folder.kept().at(0);
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    bool good = true;
    for (int round = 0; round < 20; ++round) {
      const Dataset set = TokenCache(folder.cache()).load(files, short_examples(), LazyText(words));
      good = good && set.examples.size() == 3 && set.cache_error.empty();
      std::error_code gone;
      if (round % 2 == 0) fs::remove(kept, gone);
    }
    ::_exit(good ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
}

TEST_CASE("auto is the user's cache folder") {
  const char* variables[] = {"PEFT_CACHE", "XDG_CACHE_HOME", "HOME"};
  for (const char* variable : variables) ::unsetenv(variable);
  CHECK(TokenCache("auto").folder().empty());
  ::setenv("HOME", "/h", 1);
  CHECK(TokenCache("auto").folder() == "/h/.cache/peft/tokens");
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  CHECK(TokenCache("auto").folder() == "/h/.cache/peft/tokens");
  ::setenv("XDG_CACHE_HOME", "/x", 1);
  CHECK(TokenCache("auto").folder() == "/x/peft/tokens");
  ::setenv("PEFT_CACHE", "/p", 1);
  CHECK(TokenCache("auto").folder() == "/p/tokens");
  CHECK(TokenCache("/elsewhere").folder() == "/elsewhere");
}
