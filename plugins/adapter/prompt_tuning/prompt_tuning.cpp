// Prompt tuning: virtual tokens, trained as embeddings, before each example (Lester et al. 2021, arXiv
// 2104.08691).
#include <peft/adapters/init.h>
#include <peft/adapters/prompt_adapter.h>
#include <peft/files/pretrained_model.h>
#include <peft/models/model.h>
#include <peft/plugin.h>
#include <peft/pretrained/open.h>
#include <peft/text/text.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's PromptTuningConfig.
struct PromptTuningOptions {
  peft::PromptOptions prompt;
  std::string prompt_tuning_init = "RANDOM";
  std::optional<std::string> prompt_tuning_init_text, tokenizer_name_or_path;
};

PromptTuningOptions read(peft::Options& in) {
  PromptTuningOptions o;
  peft::read_prompt_options(in, o.prompt);
  const std::string& init = o.prompt_tuning_init;
  in.get("prompt_tuning_init", o.prompt_tuning_init,
         "\"RANDOM\": normal; \"SAMPLE_VOCAB\": embeddings of random tokens; \"TEXT\": those of a text")
      .require(init == "RANDOM" || init == "SAMPLE_VOCAB" || init == "TEXT",
               R"(must be "RANDOM", "SAMPLE_VOCAB" or "TEXT")");
  in.get("prompt_tuning_init_text", o.prompt_tuning_init_text,
         "initial text, truncated or repeated to num_virtual_tokens")
      .require(init == "TEXT" || !o.prompt_tuning_init_text, "needs prompt_tuning_init = \"TEXT\"");
  if (init == "TEXT" && !o.prompt_tuning_init_text) in.error("prompt_tuning_init", "needs prompt_tuning_init_text");
  in.get("tokenizer_name_or_path", o.tokenizer_name_or_path,
         "tokenizer of the text: a Hugging Face folder or a .gguf file; default: the model's");
  return o;
}

class PromptTuning final : public peft::PromptAdapter {
 public:
  explicit PromptTuning(PromptTuningOptions options)
      : PromptAdapter("PROMPT_TUNING", options.prompt), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::PromptEncoder> make_encoder(const peft::Model& model,
                                                    const at::TensorOptions& tensor_options) override {
    const int64_t n = prompt().num_virtual_tokens, hidden = model.config().hidden_size;
    if (will_be_loaded() || options_.prompt_tuning_init == "RANDOM")
      return std::make_shared<peft::PromptEncoder>(peft::init::normal({n, hidden}, 1, tensor_options));
    const Tensor ids = options_.prompt_tuning_init == "TEXT"
                           ? text_ids(model, n)
                           : torch::randint(model.config().vocab_size, {n}, torch::kLong);
    const torch::NoGradGuard no_grad;
    const Tensor rows = at::embedding(model.embedding().dense(), ids.to(model.device()));
    return std::make_shared<peft::PromptEncoder>(rows.to(tensor_options.dtype(), false, /*copy=*/true));
  }

  void write_config(const peft::Model& model, nlohmann::ordered_json& config) const override {
    config["prompt_tuning_init"] = options_.prompt_tuning_init;
    config["prompt_tuning_init_text"] = nullptr;
    config["tokenizer_kwargs"] = nullptr;
    config["tokenizer_name_or_path"] = nullptr;
    if (options_.prompt_tuning_init_text) config["prompt_tuning_init_text"] = *options_.prompt_tuning_init_text;
    if (options_.prompt_tuning_init == "TEXT") config["tokenizer_name_or_path"] = tokenizer_path(model);
  }

 private:
  std::string tokenizer_path(const peft::Model& model) const {
    return options_.tokenizer_name_or_path.value_or(model.origin().path);
  }

  /// The text's tokens with the special ones that the tokenizer adds, repeated or truncated to n.
  Tensor text_ids(const peft::Model& model, int64_t n) const {
    const std::string path = tokenizer_path(model);
    if (path.empty()) throw peft::ConfigError("[adapter] tokenizer_name_or_path: must be given for this model");
    const auto& base = model.origin().checkpoint;  // includes added tokens
    const bool use_base = !options_.tokenizer_name_or_path && base != nullptr;
    const auto tokenizer = peft::load_text(use_base ? *base : *peft::open_pretrained(path)).tokenizer;
    const std::vector<int64_t> text = tokenizer->encode(*options_.prompt_tuning_init_text, true);
    if (text.empty()) throw peft::ConfigError("[adapter] prompt_tuning_init_text: must have at least one token");
    std::vector<int64_t> ids;
    for (std::size_t i = 0; static_cast<int64_t>(ids.size()) < n; ++i) ids.push_back(text[i % text.size()]);
    for (const int64_t id : ids)
      if (id >= model.config().vocab_size)
        throw peft::ConfigError("[adapter] tokenizer_name_or_path: token " + std::to_string(id) +
                                " is outside the model's vocabulary");
    return torch::tensor(ids, torch::kLong);
  }

  PromptTuningOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<PromptTuning>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("prompt_tuning", make); }

}  // namespace

PEFT_PLUGIN("prompt_tuning", "1.0.0", add)
