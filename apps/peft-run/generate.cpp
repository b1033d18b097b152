#include <torch/torch.h>

#include <iostream>

#include "commands.h"
#include "inference.h"
#include "peft/base/error.h"
#include "peft/models/generate.h"
#include "token_ids.h"

namespace {

using namespace peft;

std::vector<int64_t> prompt_ids(const GenerateArguments& arguments, const TextPipeline& text) {
  if (arguments.raw || text.chat_template == nullptr) {
    if (arguments.system)
      throw ConfigError("--system: " + printable(arguments.model, 4096) + " has no chat template to put it into");
    return text.tokenizer->encode(arguments.prompt, true);
  }
  std::vector<Message> messages;
  if (arguments.system) messages.push_back({"system", *arguments.system});
  messages.push_back({"user", arguments.prompt});
  return text.tokenizer->encode(text.chat_template->render(messages, true), false);
}

/// Prints what is new, as soon as no later token can change it.
class Typewriter {
 public:
  explicit Typewriter(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  bool type(int64_t token) {
    ids_.push_back(token);
    const std::string text = tokenizer_.decode(ids_, true);
    // The replacement character stands for a sequence of bytes that the next tokens may complete.
    if (!text.ends_with("\xEF\xBF\xBD") && text.size() > shown_) show(text);
    return true;
  }
  void finish() {
    show(tokenizer_.decode(ids_, true));
    std::cout << std::endl;
  }

 private:
  void show(const std::string& text) {
    if (text.size() > shown_) std::cout << text.substr(shown_) << std::flush;
    shown_ = std::max(shown_, text.size());
  }
  const Tokenizer& tokenizer_;
  std::vector<int64_t> ids_;
  std::size_t shown_ = 0;
};

}  // namespace

int generate_command(const GenerateArguments& arguments) {
  Inference inference(arguments.model, arguments.adapters, arguments.precision, arguments.device,
                      arguments.plugin_paths);
  const TextPipeline& text = inference.text();
  const auto adapted = inference.load(arguments.adapters, arguments.any_base);
  const std::vector<int64_t> prompt = prompt_ids(arguments, text);
  require_rows(prompt, *adapted.model, "--prompt");

  const Sampling sampling{.max_new_tokens = arguments.max_new_tokens,
                          .temperature = arguments.temperature,
                          .top_k = arguments.top_k,
                          .top_p = arguments.top_p,
                          .seed = arguments.seed,
                          .eos_ids = text.eos_ids};
  Typewriter typewriter(*text.tokenizer);
  generate(*adapted.model, prompt, sampling, [&](int64_t token) { return typewriter.type(token); });
  typewriter.finish();
  return 0;
}
