#include <torch/types.h>

#include <cmath>
#include <iostream>

#include "arguments.h"
#include "commands.h"
#include "inference.h"
#include "peft/base/error.h"
#include "peft/experiment/token_ids.h"
#include "peft/models/generate.h"

namespace {

using namespace peft;

struct GenerateArguments {
  AdapterArguments from;
  DeviceArguments device;
  std::string prompt;
  std::optional<std::string> system;
  Sampling sampling;
  bool raw = false;  ///< the prompt as it is, without the chat template
  StringList plugin_paths;
};

/// False: only the help was asked for.
bool read(const StringList& words, GenerateArguments& out) {
  Sampling& sampling = out.sampling;
  Arguments arguments("generate --model M [--adapter DIR] --prompt TEXT [options]");
  out.from.add_to(arguments);
  arguments.required("prompt", out.prompt, "TEXT", "the user's message");
  arguments.option("system", out.system, "TEXT", "the system message");
  arguments.option("max-new-tokens", sampling.max_new_tokens, "N", "maximum tokens of the answer");
  arguments.option("temperature", sampling.temperature, "T", "0: greedy");
  arguments.option("top-k", sampling.top_k, "K", "0: no limit");
  arguments.option("top-p", sampling.top_p, "P", "1: no limit");
  arguments.option("seed", sampling.seed, "N", "of the sampling");
  out.from.add_chat_template_to(arguments);
  arguments.flag("raw", out.raw, "use the prompt as it is, without the chat template");
  out.device.add_to(arguments);
  arguments.plugin_path(out.plugin_paths);
  if (!arguments.parse(words)) return false;
  arguments.require(sampling.max_new_tokens > 0, "--max-new-tokens must be positive");
  arguments.require(std::isfinite(sampling.temperature) && sampling.temperature >= 0,
                    "--temperature must be 0 or more");
  arguments.require(sampling.top_k >= 0, "--top-k must be 0 (no limit) or more");
  arguments.require(sampling.top_p > 0 && sampling.top_p <= 1, "--top-p must be above 0 and at most 1");
  arguments.require(!(out.raw && !out.from.chat_template.empty()), "--chat-template and --raw exclude each other");
  arguments.require(!(out.raw && out.system), "--system needs the chat template that --raw turns off");
  return true;
}

std::vector<int64_t> prompt_ids(const GenerateArguments& arguments, const TextPipeline& text) {
  if (arguments.raw || text.chat_template == nullptr) {
    if (arguments.system)
      throw ConfigError("--system: " + printable_path(arguments.from.model) +
                        " has no chat template, which it needs: give one with --chat-template");
    return text.tokenizer->encode(arguments.prompt, true);
  }
  std::vector<Message> messages;
  if (arguments.system) messages.push_back({"system", *arguments.system});
  messages.push_back({"user", arguments.prompt});
  return text.tokenizer->encode(text.chat_template->render(messages, true), false);
}

/// Prints the text of the tokens so far, as soon as no later token can change it.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  bool add(int64_t token) {
    ids_.push_back(token);
    const std::string text = tokenizer_.decode(ids_, true);
    // The replacement character is an incomplete sequence of bytes, which the next tokens may complete.
    if (!text.ends_with("\xEF\xBF\xBD") && text.size() > printed_) print(text);
    return true;
  }
  void finish() {
    print(tokenizer_.decode(ids_, true));
    std::cout << std::endl;
  }

 private:
  void print(const std::string& text) {
    if (text.size() > printed_) std::cout << text.substr(printed_) << std::flush;
    printed_ = std::max(printed_, text.size());
  }
  const Tokenizer& tokenizer_;
  std::vector<int64_t> ids_;
  std::size_t printed_ = 0;
};

}  // namespace

Outcome generate_command(const StringList& words) {
  GenerateArguments arguments;
  if (!read(words, arguments)) return {};
  Inference inference(arguments.from, arguments.device, arguments.plugin_paths);
  const TextPipeline& text = inference.text();
  const auto adapted = inference.load(arguments.from.adapters);
  const std::vector<int64_t> prompt = prompt_ids(arguments, text);
  check_token_ids(prompt, *adapted.model, "--prompt");

  arguments.sampling.eos_ids = text.eos_ids;
  StreamingDecoder decoder(*text.tokenizer);
  generate(*adapted.model, prompt, arguments.sampling, [&](int64_t token) { return decoder.add(token); });
  decoder.finish();
  return {};
}
