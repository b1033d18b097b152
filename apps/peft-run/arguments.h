#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "peft/export/combine.h"
#include "peft/options/options.h"

/// The command line cannot be understood. `help` is the command that shows what can be: "peft-run list --help".
struct UsageError : std::runtime_error {
  UsageError(const std::string& message, const std::string& help)
      : std::runtime_error(message + "; see '" + help + "'") {}
};

/// Declares a command's options and reads them. Every option is `--name VALUE` and writes to a variable that must live
/// until parse(); the value that the variable has before is the default, which the help shows. The only user of
/// Boost.Program_options.
class Arguments {
 public:
  /// `usage`: without "usage: peft-run ".
  explicit Arguments(const std::string& usage);
  ~Arguments();
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  void flag(const char* name, bool& value, const std::string& help);
  void option(const char* name, std::string& value, const char* placeholder, const std::string& help);
  void option(const char* name, int64_t& value, const char* placeholder, const std::string& help);
  void option(const char* name, uint64_t& value, const char* placeholder, const std::string& help);
  void option(const char* name, double& value, const char* placeholder, const std::string& help);
  /// Without a default.
  void option(const char* name, std::optional<std::string>& value, const char* placeholder, const std::string& help);
  void option(const char* name, std::optional<int64_t>& value, const char* placeholder, const std::string& help);
  /// May be repeated.
  void option(const char* name, peft::StringList& values, const char* placeholder, const std::string& help);
  void option(const char* name, std::vector<double>& values, const char* placeholder, const std::string& help);
  /// Must be given.
  void required(const char* name, std::string& value, const char* placeholder, const std::string& help);
  void required(const char* name, peft::StringList& values, const char* placeholder, const std::string& help);
  /// `--name` alone gives ""; otherwise the next word is the value, unless it starts with '-' or is an experiment: a
  /// file, or a name ending in ".toml" that is not a folder.
  void optional_folder(const char* name, std::optional<std::string>& value, const char* placeholder,
                       const std::string& help);
  /// The one argument without a name; "" if it is absent.
  void positional(std::string& value);
  /// Absolute folders.
  void plugin_path(peft::StringList& folders);

  /// False if --help was given: the help has been printed. Throws UsageError.
  bool parse(const peft::StringList& words);
  /// Throws UsageError with the message unless `ok`.
  void require(bool ok, const std::string& message) const;
  /// Whether the command line has the option.
  bool has(const char* name) const;

 private:
  template <class Value>
  void add(const char* name, Value* semantic, const char* placeholder, const std::string& help);
  std::string help() const;
  std::string help_command() const;
  std::string near_option(const std::string& unknown) const;
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

/// --model, --adapter, --any-base and --ignore-unknown, as in every command that reads adapters.
struct AdapterArguments {
  std::string model;            ///< Hugging Face folder or .gguf file
  peft::StringList adapters;    ///< folders, the outermost first
  bool any_base = false;        ///< also adapters that were trained on another base
  bool ignore_unknown = false;  ///< also configs with unknown keys
  std::string chat_template;    ///< a .jinja file, or the name of one of the model's templates
  void add_to(Arguments& arguments);
  /// --chat-template, in commands that render conversations.
  void add_chat_template_to(Arguments& arguments);
  peft::AdaptedModelOptions model_options() const { return {model, adapters, any_base, ignore_unknown}; }
};

/// --precision and --device.
struct DeviceArguments {
  std::string precision = "fp32", device = "auto";
  void add_to(Arguments& arguments);
};

/// An experiment file, --with and --set.
struct ExperimentArguments {
  std::string path;
  peft::StringList overlays;  ///< files whose tables replace the experiment's, in order
  peft::StringList sets;      ///< `table.key=value`, in order
  void add_to(Arguments& arguments);
  void check(const Arguments& arguments) const;
};
