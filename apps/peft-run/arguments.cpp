#include "arguments.h"

#include <algorithm>
#include <boost/program_options.hpp>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "peft/base/error.h"

namespace po = boost::program_options;
using peft::StringList;

namespace {

bool is_experiment(const std::string& word) {
  std::error_code error;
  const auto type = std::filesystem::status(word, error).type();
  if (type == std::filesystem::file_type::directory) return false;
  return type == std::filesystem::file_type::regular || word.ends_with(".toml");
}

}  // namespace

struct Arguments::Parser {
  std::string usage;
  po::options_description options{"options"};
  po::options_description hidden;  ///< arguments without a name
  po::positional_options_description positional;
  po::variables_map values;
  std::string optional_folder;  ///< the option of optional_folder(), as "--name"

  /// Boost gives an option with an optional value whatever word follows it. So `--resume DIR` becomes `--resume=DIR`,
  /// and `--resume` without a value moves to the end.
  StringList joined(const StringList& words) const {
    StringList all;
    bool is_alone = false;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const bool has_value = i + 1 < words.size() && !words[i + 1].starts_with('-') && !is_experiment(words[i + 1]);
      if (optional_folder.empty() || words[i] != optional_folder)
        all.push_back(words[i]);
      else if (has_value)
        all.push_back(optional_folder + "=" + words[++i]);
      else
        is_alone = true;
    }
    if (is_alone) all.insert(std::find(all.begin(), all.end(), "--"), optional_folder);
    return all;
  }
};

template <class Value>
void Arguments::add(const char* name, Value* semantic, const char* placeholder, const std::string& help) {
  parser_->options.add_options()(name, semantic->value_name(placeholder), help.c_str());
}

Arguments::Arguments(const std::string& usage) : parser_(std::make_unique<Parser>()) {
  parser_->usage = "usage: peft-run " + usage;
  parser_->options.add_options()("help,h", "show this help");
}

Arguments::~Arguments() = default;

void Arguments::flag(const char* name, bool& value, const std::string& help) {
  parser_->options.add_options()(name, po::bool_switch(&value), help.c_str());
}

void Arguments::option(const char* name, std::string& value, const char* placeholder, const std::string& help) {
  auto* semantic = po::value(&value);
  add(name, value.empty() ? semantic : semantic->default_value(value), placeholder, help);
}

void Arguments::option(const char* name, int64_t& value, const char* placeholder, const std::string& help) {
  add(name, po::value(&value)->default_value(value), placeholder, help);
}

void Arguments::option(const char* name, uint64_t& value, const char* placeholder, const std::string& help) {
  add(name, po::value(&value)->default_value(value), placeholder, help);
}

void Arguments::option(const char* name, double& value, const char* placeholder, const std::string& help) {
  add(name, po::value(&value)->default_value(value), placeholder, help);
}

void Arguments::option(const char* name, std::optional<std::string>& value, const char* placeholder,
                       const std::string& help) {
  add(name, po::value<std::string>()->notifier([&value](const std::string& given) { value = given; }), placeholder,
      help);
}

void Arguments::option(const char* name, std::optional<int64_t>& value, const char* placeholder,
                       const std::string& help) {
  add(name, po::value<int64_t>()->notifier([&value](int64_t given) { value = given; }), placeholder, help);
}

void Arguments::option(const char* name, StringList& values, const char* placeholder, const std::string& help) {
  add(name, po::value(&values), placeholder, help);
}

void Arguments::option(const char* name, std::vector<double>& values, const char* placeholder,
                       const std::string& help) {
  add(name, po::value(&values), placeholder, help);
}

void Arguments::required(const char* name, std::string& value, const char* placeholder, const std::string& help) {
  add(name, po::value(&value)->required(), placeholder, help);
}

void Arguments::required(const char* name, StringList& values, const char* placeholder, const std::string& help) {
  add(name, po::value(&values)->required(), placeholder, help);
}

void Arguments::optional_folder(const char* name, std::optional<std::string>& value, const char* placeholder,
                                const std::string& help) {
  parser_->optional_folder = std::string("--") + name;
  add(name,
      po::value<std::string>()->implicit_value("")->notifier([&value](const std::string& given) { value = given; }),
      placeholder, help);
}

void Arguments::positional(std::string& value) {
  parser_->hidden.add_options()("positional", po::value(&value));
  parser_->positional.add("positional", 1);
}

void Arguments::plugin_path(StringList& folders) {
  const auto make_absolute = [this, &folders](const StringList& given) {
    for (const std::string& folder : given) {
      require(!folder.empty(), "--plugin-path must name a folder");
      folders.push_back(std::filesystem::absolute(folder).lexically_normal().string());
    }
  };
  add("plugin-path", po::value<StringList>()->notifier(make_absolute), "DIR",
      "search this folder for plugins first (may be repeated)");
}

bool Arguments::parse(const StringList& words) {
  // No guessing of shortened names: a later option must not change what an old script means.
  const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  po::options_description all;
  all.add(parser_->options).add(parser_->hidden);
  try {
    po::store(
        po::command_line_parser(parser_->joined(words)).options(all).positional(parser_->positional).style(style).run(),
        parser_->values);
    if (has("help")) {
      std::cout << help();
      return false;
    }
    po::notify(parser_->values);
  } catch (const po::unknown_option& error) {
    const std::string near = near_option(error.get_option_name());
    throw UsageError("unknown option '" + peft::printable(error.get_option_name()) + "'" +
                         (near.empty() ? "" : "; did you mean '" + near + "'?"),
                     help_command());
  } catch (const po::error& error) {
    throw UsageError(peft::printable(error.what(), 1000), help_command());
  }
  return true;
}

void Arguments::require(bool ok, const std::string& message) const {
  if (!ok) throw UsageError(message, help_command());
}

bool Arguments::has(const char* name) const {
  const auto it = parser_->values.find(name);
  return it != parser_->values.end() && !it->second.defaulted();
}

std::string Arguments::help() const {
  std::ostringstream text;
  text << parser_->usage << "\n" << parser_->options;
  return text.str();
}

std::string Arguments::help_command() const {
  const std::string& usage = parser_->usage;
  const std::string prefix = "usage: peft-run ";
  return "peft-run " + usage.substr(prefix.size(), usage.find_first_of(" \n", prefix.size()) - prefix.size()) +
         " --help";
}

std::string Arguments::near_option(const std::string& unknown) const {
  StringList known;
  for (const auto& option : parser_->options.options()) known.push_back("--" + option->long_name());
  return peft::nearest(unknown, known);
}

void AdapterArguments::add_to(Arguments& arguments) {
  arguments.required("model", model, "PATH", "Hugging Face folder, or .gguf file");
  arguments.option("adapter", adapters, "DIR",
                   "folder with adapter_config.json and adapter_model.safetensors; may be repeated");
  arguments.flag("any-base", any_base, "accept adapters that were trained on another base");
  arguments.flag("ignore-unknown", ignore_unknown,
                 "accept configs of model and adapters with unknown keys, and note them");
}

void AdapterArguments::add_chat_template_to(Arguments& arguments) {
  arguments.option("chat-template", chat_template, "FILE", "a .jinja file, or one of the model's templates");
}

void DeviceArguments::add_to(Arguments& arguments) {
  arguments.option("precision", precision, "NAME", "a precision plugin");
  arguments.option("device", device, "NAME", "auto, cpu, cuda, cuda:1, ...");
}

void ExperimentArguments::add_to(Arguments& arguments) {
  arguments.option("with", overlays, "FILE.toml",
                   "replace entire tables of the experiment by those of this file; may be repeated");
  arguments.option("set", sets, "TABLE.KEY=VALUE", "then override a value; may be repeated");
  arguments.positional(path);
}

void ExperimentArguments::check(const Arguments& arguments) const {
  arguments.require(!path.empty(), "no experiment given");
}
