// Shows for the plugin loader: it loads only plugins that a run names; no code of a file runs before the file is known
// to be complete, trusted and built for this version; every error of a plugin is reported with its file; and the
// process and other plugins continue to work.
#include <torch/types.h>

#include "peft/plugin/plugins.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "peft/base/error.h"
#include "peft/nn/linear.h"
#include "peft/options/document.h"
#include "peft/plugin/plugin_info.h"
#include "peft/train/clipping.h"
#include "peft/train/optimizer.h"
#include "peft/train/scheduler.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;
namespace fs = std::filesystem;

namespace {

const std::string fixtures = PEFT_FIXTURES;

std::string slurp(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

/// A plugin folder of its own, with copies of the good plugin, changed or not.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "peft_plugins_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() { fs::remove_all(path_); }
  fs::path file(const std::string& name = "good") const { return path_ / ("peft_scheduler_" + name + ".so"); }
  std::string path() const { return path_.string(); }
  void write(const std::string& bytes, const std::string& name = "good") const {
    std::ofstream(file(name), std::ios::binary) << bytes;
    ::chmod(file(name).c_str(), 0644);
  }
  /// The good plugin with the n-th occurrence of `from` overwritten.
  void write_patched(const std::string& from, const std::string& to) const {
    REQUIRE(from.size() == to.size());
    std::string bytes = slurp(fixtures + "/peft_scheduler_good.so");
    const std::size_t record = bytes.find(std::string("peft plugin 1\0", 14));
    REQUIRE(record != std::string::npos);
    const std::size_t at = bytes.find(from, record);
    REQUIRE(at != std::string::npos);
    write(bytes.replace(at, from.size(), to));
  }

 private:
  fs::path path_;
};

std::string refusal_of(const std::string& folder, const std::string& name = "good") {
  Plugins plugins({folder});
  Options in;
  return message_of<PluginError>([&] { plugins.make<Scheduler>(name, in); });
}

std::string refusal_of_misbehaving(const char* behavior) {
  ::setenv("PEFT_FIXTURE", behavior, 1);
  const std::string message = refusal_of(fixtures, "misbehaving");
  ::unsetenv("PEFT_FIXTURE");
  return message;
}

void check_good_still_works() {
  Plugins plugins({fixtures});
  Document document = Document::from_text("[scheduler]\nscale = 2.5\n");
  Options in = document.table("scheduler");
  CHECK(plugins.make<Scheduler>("good", in)->lr(0, 1, 2.0) == 5.0);
  document.finish();
}

}  // namespace

TEST_CASE("a valid plugin is found, created from its options, and described", "[plugin]") {
  check_good_still_works();
  Plugins plugins({"/nonexistent", fixtures});
  const auto options = plugins.describe("scheduler", "good");
  REQUIRE(options.size() == 2);
  CHECK(options[0].key == "scale");
  CHECK(options[0].default_value == "1.0");
  const auto loaded = plugins.loaded();
  REQUIRE(loaded.size() == 1);
  CHECK(loaded[0].kind == "scheduler");
  CHECK(loaded[0].name == "good");
  CHECK(loaded[0].version == "1.2.3");
  CHECK(loaded[0].file == fixtures + "/peft_scheduler_good.so");
}

TEST_CASE("exceptions and RTTI work across the library boundary", "[plugin]") {
  Plugins plugins({fixtures});
  Document document = Document::from_text("[scheduler]\ntoml = \"not toml\"\n");
  Options in = document.table("scheduler");
  const auto made = plugins.make<Scheduler>("good", in);
  CHECK(made->lr(0, 1, 1.0) == 0.25);  // the plugin caught the core's ConfigError by type
  CHECK(dynamic_cast<GradientClipping*>(made.get()) != nullptr);
  CHECK(dynamic_cast<Optimizer*>(made.get()) == nullptr);
  ::setenv("PEFT_FIXTURE", "make: ConfigError", 1);
  CHECK_THROWS_AS(plugins.make<Scheduler>("misbehaving", in), ConfigError);
  ::setenv("PEFT_FIXTURE", "make: InputError", 1);
  CHECK_THROWS_AS(plugins.make<Scheduler>("misbehaving", in), InputError);
  ::unsetenv("PEFT_FIXTURE");
}

TEST_CASE("an object outlives the Plugins object that created it", "[plugin]") {
  std::unique_ptr<Scheduler> made;
  {
    Plugins plugins({fixtures});
    Options in;
    made = plugins.make<Scheduler>("good", in);
  }
  CHECK(made->lr(0, 1, 3.0) == 3.0);
}

TEST_CASE("rules of a plugin's options are reported with the file's errors", "[plugin]") {
  Plugins plugins({fixtures});
  Document document = Document::from_text("[scheduler]\nscael = 1\nscale = -2\n", "exp.toml");
  Options in = document.table("scheduler");
  plugins.make<Scheduler>("good", in);
  CHECK_THROWS_WITH(document.finish(),
                    "exp.toml:2:1: [scheduler] unknown key 'scael'; did you mean 'scale'?\n"
                    "exp.toml:3:9: [scheduler] 'scale' must be positive");
}

TEST_CASE("the error for an unknown name has the nearest names, the names found and the search path", "[plugin]") {
  CHECK(refusal_of(fixtures, "godo") ==
        "no plugin 'godo' of kind scheduler; did you mean 'good'?; found: good, misbehaving, no_record, no_symbol, "
        "other_info, unresolved; searched: " +
            fixtures + "; [plugins] paths, --plugin-path or $PEFT_PLUGIN_PATH add a folder");
  CHECK(has(refusal_of(fixtures, "../plugins/peft_scheduler_good"), "no plugin '../plugins/peft_scheduler_good'"));
  CHECK(has(refusal_of(fixtures, ""), "no plugin ''"));
}

TEST_CASE("hints in the search path's folders explain names of other tools", "[plugin]") {
  Folder folder;
  std::ofstream(fs::path(folder.path()) / "peft_scheduler_good.hints.toml") << "[scheduler]\nnice = \"nice is good\"\n";
  std::ofstream(fs::path(folder.path()) / "broken.hints.toml") << "[scheduler\n";
  const Plugins plugins({folder.path()});
  CHECK(has(plugins.missing("scheduler", "nice"), "no plugin 'nice' of kind scheduler; nice is good; found: none"));
  CHECK(has(plugins.missing("optimizer", "nice"), "no plugin 'nice' of kind optimizer; found: none"));
  CHECK(Plugins({fixtures}).missing("scheduler", "good").empty());
}

TEST_CASE("a plugin's example is the file next to it", "[plugin]") {
  Folder folder;
  folder.write(slurp(fs::path(fixtures) / "peft_scheduler_good.so"));
  Plugins plugins({folder.path()});
  CHECK(has(message_of<PluginError>([&] { plugins.example("scheduler", "good"); }), "scheduler/good has no example"));
  std::ofstream(fs::path(folder.path()) / "peft_scheduler_good.example.toml") << "[scheduler]\nname = \"good\"\n";
  CHECK(plugins.example("scheduler", "good") == "[scheduler]\nname = \"good\"\n");
}

TEST_CASE("the search path", "[plugin]") {
  ::setenv("PEFT_PLUGIN_PATH", "/a:/b:", 1);
  const StringList path = Plugins::search_path({"/toml"});
  REQUIRE(path.size() == 4);
  CHECK(path[0] == "/toml");
  CHECK(path[1] == "/a");
  CHECK(path[2] == "/b");
  CHECK(path[3].ends_with("/peft/plugins"));
  ::setenv("PEFT_PLUGIN_PATH", "/a::/b", 1);
  CHECK_THROWS_AS(Plugins::search_path({}), PluginError);
  ::setenv("PEFT_PLUGIN_PATH", "plugins", 1);
  CHECK_THROWS_AS(Plugins::search_path({}), PluginError);
  ::unsetenv("PEFT_PLUGIN_PATH");
  CHECK_THROWS_AS(Plugins({"plugins"}), PluginError);
  CHECK_THROWS_AS(Plugins({""}), PluginError);
}

TEST_CASE("a plugin built for something else is refused before anything in it runs", "[plugin]") {
  const std::string number = PEFT_STRINGIFY(PEFT_ABI_NUMBER);
  const std::pair<std::string, std::string> changes[] = {
      {"peft ABI " + number + ",", "peft ABI " + std::string(number.size(), '0') + ","},
      {TORCH_VERSION, std::string(std::strlen(TORCH_VERSION), '9')},
      {"compiler ABI 1", "compiler ABI 9"},
      {"string ABI 1", "string ABI 0"},
      {"peft plugin 1", "peft plugin 2"},
      {std::string("\0good\0", 6), std::string("\0evil\0", 6)},
  };
  for (const auto& [from, to] : changes) {
    const Folder folder;
    folder.write_patched(from, to);
    ::unsetenv("PEFT_FIXTURE_LOADED");
    const std::string message = refusal_of(folder.path());
    CHECK(has(message, folder.file().string() + ": "));
    CHECK((has(message, "built for {") || has(message, "not a peft plugin that this peft knows") ||
           has(message, "its record names 'evil'")));
    CHECK(std::getenv("PEFT_FIXTURE_LOADED") == nullptr);
  }
  const Folder folder;
  folder.write(slurp(fixtures + "/peft_scheduler_good.so"));
  CHECK(refusal_of(folder.path()) == "");
  CHECK(std::getenv("PEFT_FIXTURE_LOADED") != nullptr);
  check_good_still_works();
}

TEST_CASE("the exports of a library are checked before any of its code runs", "[plugin]") {
  ::unsetenv("PEFT_FIXTURE_LOADED");
  CHECK(refusal_of(fixtures, "no_symbol") ==
        fixtures + "/peft_scheduler_no_symbol.so: not a peft plugin: it does not export peft_plugin_v1");
  CHECK(refusal_of(fixtures, "other_info") ==
        fixtures + "/peft_scheduler_other_info.so: its peft_plugin_v1 has " + std::to_string(sizeof(PluginInfo) + 8) +
            " bytes, but this peft's has " + std::to_string(sizeof(PluginInfo)) + "; build it again");
  CHECK(std::getenv("PEFT_FIXTURE_LOADED") == nullptr);
  check_good_still_works();
}

TEST_CASE("a library truncated at any byte is refused", "[plugin]") {
  const std::string complete = slurp(fixtures + "/peft_scheduler_good.so");
  for (std::size_t part = 0; part < 64; ++part) {
    const Folder folder;
    folder.write(complete.substr(0, complete.size() * part / 64));
    CHECK(has(refusal_of(folder.path()), part == 0 ? "not a shared library" : "the file is truncated"));
  }
  const Folder folder;
  folder.write(complete.substr(0, complete.size() - 1));
  CHECK(has(refusal_of(folder.path()), "the file is truncated"));
  check_good_still_works();
}

TEST_CASE("random headers are refused", "[plugin]") {
  const std::string complete = slurp(fixtures + "/peft_scheduler_good.so");
  // The ELF header, byte by byte, both ways; some bytes mean nothing to a loader.
  int refused = 0;
  for (std::size_t at = 0; at < 64; ++at) {
    for (const char value : {'\xff', '\0'}) {
      if (complete[at] == value) continue;
      const Folder folder;
      std::string bytes = complete;
      bytes[at] = value;
      folder.write(bytes);
      refused += refusal_of(folder.path()).empty() ? 0 : 1;
    }
  }
  CHECK(refused > 40);
  const Folder folder;
  folder.write("#!/bin/sh\necho no library\n" + std::string(100, '\n'));
  CHECK(refusal_of(folder.path()) == folder.file().string() + ": not a shared library");
  CHECK(has(refusal_of(fixtures, "no_record"), "it has no record of PEFT_PLUGIN"));
  check_good_still_works();
}

TEST_CASE("the error for a library that cannot be loaded has the reason", "[plugin]") {
  CHECK(has(refusal_of(fixtures, "unresolved"),
            fixtures + "/peft_scheduler_unresolved.so: cannot be loaded: undefined symbol: _Z28peft_fixture"));
  check_good_still_works();
}

TEST_CASE("a static constructor that throws ends the process with the file's name and the exit code of plugins",
          "[plugin]") {
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipe[1], 2);
    refusal_of(fixtures + "/fatal", "throws_on_load");
    ::_exit(0);
  }
  ::close(pipe[1]);
  char message[4096] = {};
  const ssize_t size = ::read(pipe[0], message, sizeof message - 1);
  ::close(pipe[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(size > 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 4);
  CHECK(has(message, "peft_scheduler_throws_on_load.so: a static constructor threw: thrown by a static constructor"));
}

TEST_CASE("files and folders that other users can write are refused", "[plugin]") {
  const Folder folder;
  const std::string complete = slurp(fixtures + "/peft_scheduler_good.so");
  folder.write(complete);
  SECTION("file writable by others") {
    ::chmod(folder.file().c_str(), 0646);
    CHECK(has(refusal_of(folder.path()), folder.file().string() + ": refused, because users other"));
  }
  SECTION("file or folder writable by a group of other users") {
    if (::geteuid() != 0) return;  // only root can give a file to a group that it is not in
    const auto same_user = static_cast<uid_t>(-1);
    REQUIRE(::chown(folder.file().c_str(), same_user, 12345) == 0);
    ::chmod(folder.file().c_str(), 0664);
    CHECK(has(refusal_of(folder.path()), "users other than its owner can write it"));
    ::chmod(folder.file().c_str(), 0644);
    REQUIRE(::chown(folder.path().c_str(), same_user, 12345) == 0);
    ::chmod(folder.path().c_str(), 0775);
    CHECK(has(refusal_of(folder.path()), folder.path() + ": refused, because users other"));
  }
  SECTION("file and folder writable by the user's private group") {
    const passwd* user = ::getpwuid(::geteuid());
    const group* primary = user != nullptr ? ::getgrgid(user->pw_gid) : nullptr;
    const bool is_private = primary != nullptr && has(user->pw_name, primary->gr_name) &&
                            has(primary->gr_name, user->pw_name) && *primary->gr_mem == nullptr;
    if (!is_private) return;
    ::chmod(folder.file().c_str(), 0664);
    ::chmod(folder.path().c_str(), 0775);
    CHECK(refusal_of(folder.path()) == "");
  }
  SECTION("folder writable by others, sticky or not") {
    for (const mode_t mode : {0777, 01777, 0757}) {
      ::chmod(folder.path().c_str(), mode);
      CHECK(has(refusal_of(folder.path()), folder.path() + ": refused, because users other"));
    }
  }
  SECTION("file of another user") {
    if (::geteuid() != 0) return;  // only root can give a file away
    REQUIRE(::chown(folder.file().c_str(), 12345, 12345) == 0);
    CHECK(has(refusal_of(folder.path()), "belongs to another user (uid 12345)"));
  }
  SECTION("folder of another user") {
    if (::geteuid() != 0) return;
    REQUIRE(::chown(folder.path().c_str(), 12345, 12345) == 0);
    CHECK(has(refusal_of(folder.path()), folder.path() + ": refused, because it belongs to another user"));
  }
  SECTION("symbolic link") {
    fs::remove(folder.file());
    fs::create_symlink(fixtures + "/peft_scheduler_good.so", folder.file());
    CHECK(has(refusal_of(folder.path()), "it is a symbolic link"));
  }
  SECTION("dangling link") {
    fs::remove(folder.file());
    fs::create_symlink("/nonexistent", folder.file());
    CHECK(has(refusal_of(folder.path()), "it is a symbolic link"));
  }
  SECTION("FIFO") {
    fs::remove(folder.file());
    REQUIRE(::mkfifo(folder.file().c_str(), 0644) == 0);
    CHECK(has(refusal_of(folder.path()), "it is not a regular file"));
  }
  SECTION("directory") {
    fs::remove(folder.file());
    fs::create_directory(folder.file());
    CHECK(has(refusal_of(folder.path()), "it is not a regular file"));
  }
  check_good_still_works();
}

TEST_CASE("an error while registering a plugin is reported with the file", "[plugin]") {
  const std::string file = fixtures + "/peft_scheduler_misbehaving.so: ";
  CHECK(refusal_of_misbehaving("add: runtime_error") == file + "could not register: thrown by the plugin");
  CHECK(refusal_of_misbehaving("add: int") == file + "could not register: something that is not a std::exception");
  CHECK(refusal_of_misbehaving("add: null") == file + "could not register: 'misbehaving' registers no factory");
  CHECK(refusal_of_misbehaving("add: twice") == file + "could not register: 'misbehaving' is registered twice");
  const std::string must = file + "must register scheduler/misbehaving and nothing else, but registered: ";
  CHECK(refusal_of_misbehaving("add: nothing") == must + "none");
  CHECK(refusal_of_misbehaving("add: other name") == must + "scheduler/other");
  CHECK(refusal_of_misbehaving("add: other kind") == must + "clipping/misbehaving");
  CHECK(refusal_of_misbehaving("add: more") == must + "scheduler/misbehaving, clipping/misbehaving");
  CHECK(refusal_of(fixtures, "misbehaving") == "");
  check_good_still_works();
}

TEST_CASE("an error while creating a plugin's object is reported with the plugin", "[plugin]") {
  const std::string who = "plugin scheduler/misbehaving: ";
  CHECK(refusal_of_misbehaving("make: runtime_error") == who + "could not be created: thrown by the plugin");
  CHECK(refusal_of_misbehaving("make: int") == who + "could not be created: something that is not a std::exception");
  CHECK(has(refusal_of_misbehaving("make: c10::Error"), who + "could not be created: thrown by the plugin"));
  CHECK(refusal_of_misbehaving("make: null") == who + "the factory of 'misbehaving' returned nothing");
  check_good_still_works();
}

TEST_CASE("all parent folders up to the root are checked, including those of symbolic links", "[plugin]") {
  const Folder top;
  const std::string above = top.path() + "/above", plugins = above + "/plugins";
  REQUIRE(fs::create_directories(plugins));
  const std::string name = "/peft_scheduler_good.so";
  std::ofstream(plugins + name, std::ios::binary) << slurp(fixtures + name);
  ::chmod((plugins + name).c_str(), 0644);
  for (const std::string& folder : {above, plugins}) ::chmod(folder.c_str(), 0755);
  fs::create_directory_symlink(above, top.path() + "/link");
  fs::create_directory_symlink("../above/plugins", top.path() + "/above/near");
  fs::create_directory_symlink("round", top.path() + "/round");
  const StringList ways = {plugins, top.path() + "/link/plugins", above + "/near", above + "/../above/./plugins"};
  for (const std::string& way : ways) CHECK(refusal_of(way) == "");
  SECTION("writable by others: above it too") {
    if (::geteuid() == 0) REQUIRE(::chown(above.c_str(), static_cast<uid_t>(-1), 12345) == 0);
    for (const mode_t mode : {0775, 0757}) {
      if (mode == 0775 && ::geteuid() != 0) continue;  // only root can give a folder to a group that it is not in
      ::chmod(above.c_str(), mode);
      for (const std::string& way : ways)
        CHECK(
            has(refusal_of(way), ": refused, because users other than its owner can write " + above + " (chmod go-w)"));
    }
  }
  SECTION("writable by others, but sticky: they cannot exchange what is not theirs") {
    ::chmod(above.c_str(), 01777);
    for (const std::string& way : ways) CHECK(refusal_of(way) == "");
    ::chmod(plugins.c_str(), 01777);
    for (const std::string& way : ways) CHECK(has(refusal_of(way), way + ": refused, because users other"));
  }
  SECTION("of another user: a folder above, a link") {
    if (::geteuid() != 0) return;  // only root can give a file away
    REQUIRE(::lchown((top.path() + "/link").c_str(), 12345, 12345) == 0);
    CHECK(has(refusal_of(ways[1]), top.path() + "/link belongs to another user (uid 12345)"));
    REQUIRE(::chown(above.c_str(), 12345, 12345) == 0);
    for (const std::string& way : ways) CHECK(has(refusal_of(way), "belongs to another user (uid 12345)"));
  }
  SECTION("links that go round") {
    CHECK(has(refusal_of(top.path() + "/round"), "it goes through too many symbolic links"));
  }
  check_good_still_works();
}

TEST_CASE("an exception of a plugin in a step is reported with its file", "[plugin]") {
  Linear site({.path = "model.layers.0.self_attn.q_proj", .role = "q_proj", .layer = 0}, 2, 2, false);
  site.load_base_weight({torch::ones({2, 2}), {}});
  struct ThrowingLayer final : AdapterLayer {
    std::function<Tensor(const Tensor&, const Next&)> work;
    Tensor forward(const Tensor& x, const Next& next) override { return work(x, next); }
  };
  const auto layer = std::make_shared<ThrowingLayer>();
  site.attach("throwing", layer);
  const auto message = [&] { return message_of<PluginError>([&] { site.forward(torch::ones({1, 2})); }); };
  layer->work = [](const Tensor& x, const Next& next) { return next(x); };
  CHECK(message() == "");
  layer->work = [](const Tensor&, const Next&) -> Tensor { throw std::runtime_error("thrown by the layer"); };
  CHECK(has(message(), "test_plugin: forward failed: thrown by the layer"));
  layer->work = [](const Tensor&, const Next&) -> Tensor { throw 7; };
  CHECK(has(message(), "test_plugin: forward failed: something that is not a std::exception"));
  layer->work = [](const Tensor& x, const Next& next) { return next(x).view({5}); };
  CHECK(has(message(), "forward failed: shape '[5]' is invalid"));
  layer->work = [](const Tensor&, const Next&) -> Tensor { throw std::bad_alloc(); };
  CHECK_THROWS_AS(site.forward(torch::ones({1, 2})), std::bad_alloc);
  layer->work = [](const Tensor&, const Next&) -> Tensor { throw DivergedError("diverged"); };
  CHECK_THROWS_AS(site.forward(torch::ones({1, 2})), DivergedError);
  layer->work = [](const Tensor&, const Next& next) { return next(torch::ones({3, 3})); };
  CHECK(has(message(), "the argument of next is fp32 [3, 3]; it must be fp32 [3, 2]"));
}

TEST_CASE("list shows all plugins, and the reason for each that cannot be used", "[plugin]") {
  const Folder folder;
  folder.write(slurp(fixtures + "/peft_scheduler_good.so"));
  folder.write("nonsense", "broken");
  std::ofstream(folder.path() + "/peft_teapot_x.so") << "x";
  std::ofstream(folder.path() + "/libother.so") << "x";
  Plugins plugins({folder.path(), fixtures});
  const auto all = plugins.scan();
  const std::pair<std::string, std::string> expected[] = {
      {"throwing", ""},
      {"doubled", ""},
      {"ending", ""},
      {"throwing", ""},
      {"throwing", ""},
      {"broken", "not a shared library"},
      {"good", ""},
      {"good", "a folder searched earlier has a scheduler/good"},
      {"misbehaving", ""},
      {"no_record", "no record"},
      {"no_symbol", "does not export"},
      {"other_info", "build it again"},
      {"unresolved", "peft_fixture_that_nobody_has"},
      {"x", "unknown plugin kind 'teapot'"},
  };
  REQUIRE(all.size() == std::size(expected));
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(all[i].name == expected[i].first);
    CHECK((expected[i].second.empty() ? all[i].problem.empty() : has(all[i].problem, expected[i].second)));
  }
  CHECK(all[6].file == folder.file().string());
}
