// Shows for the options of every plugin of the tree: a value at the edge of its type either trains or is refused by the
// option's own bounds (ConfigError). It is never an error of the plugin, an internal error or a number that is not
// finite by itself.
#include <torch/types.h>

#include <map>

#include "peft/adapters/stack.h"
#include "peft/base/error.h"
#include "peft/train/train.h"
#include "plugins/load.h"
#include "selfcheck/tiny_model.h"
#include "support/test.h"

using namespace peft;
using torch::Tensor;

namespace {

const StringList kIntegers = {"-9223372036854775808", "-1", "0", "1", "2147483648", "9223372036854775807"};
const StringList kNumbers = {"-1e308", "-1e30", "-1.0", "0.0", "5e-324", "1.0", "1e30", "1e308", "inf", "nan"};

/// Options with which a method fits the tiny model, by plugin; those of the optimizers keep what they need.
const std::map<std::string, std::map<std::string, std::string>> kBase = {
    {"adapter/adalora", {{"init_r", "4"}, {"target_r", "2"}}},
    {"adapter/adaption_prompt", {{"adapter_len", "3"}}},
    {"adapter/boft", {{"boft_block_size", "4"}}},
    {"adapter/bottleneck", {{"reduction_factor", "4.0"}}},
    {"adapter/c3a", {{"block_size", "4"}}},
    {"adapter/fourierft", {{"n_frequency", "20"}}},
    {"adapter/gralora", {{"r", "4"}, {"gralora_k", "2"}}},
    {"adapter/ln_tuning", {{"modules_to_save", "[\"lm_head\"]"}}},
    {"adapter/oft", {{"oft_block_size", "4"}}},
    {"adapter/p_tuning", {{"num_virtual_tokens", "3"}, {"encoder_hidden_size", "8"}}},
    {"adapter/prefix_tuning", {{"num_virtual_tokens", "3"}}},
    {"adapter/prompt_tuning", {{"num_virtual_tokens", "3"}}},
    {"adapter/randlora", {{"r", "4"}, {"save_projection", "false"}}},
    {"adapter/road", {{"group_size", "8"}}},
    {"adapter/shira", {{"r", "2"}}},
    {"adapter/trainable_tokens", {{"token_indices", "[1, 2, 3, 4, 5, 6, 7, 8, 9]"}}},
    {"adapter/vblora", {{"num_vectors", "8"}, {"vector_length", "4"}}},
    {"adapter/vera", {{"r", "6"}, {"save_projection", "false"}}},
    {"adapter/waveft", {{"n_frequency", "20"}}},
    {"optimizer/adamw_8bit", {{"min_8bit_size", "0"}}},
    {"optimizer/galore", {{"rank", "2"}}},
};

std::string table_of(const std::string& plugin, const std::string& key = "", const std::string& value = "") {
  std::map<std::string, std::string> options;
  if (const auto base = kBase.find(plugin); base != kBase.end()) options = base->second;
  if (!key.empty()) options[key] = value;
  const std::size_t slash = plugin.find('/');
  std::string toml = "[" + plugin.substr(0, slash) + "]\nname = \"" + plugin.substr(slash + 1) + "\"\n";
  for (const auto& [name, text] : options) toml += name + " = " + text + "\n";
  return toml;
}

Dataset test_data() {
  Dataset data;
  data.files = {"data.jsonl"};
  for (int64_t i = 0; i < 4; ++i) {
    Example example{{1 + i, 5, 9, 2, 7 + i, 3}, {}};
    example.labels = example.ids;
    example.line = i + 1;
    data.examples.push_back(std::move(example));
  }
  return data;
}

/// The plugin that `tables` name, or the default one.
template <class Interface>
std::unique_ptr<Interface> make(Document& document, Plugins& plugins) {
  std::string name = Kind<Interface>::default_plugin;
  Options table = document.table(Kind<Interface>::name);
  table.get("name", name, "");
  return plugins.make<Interface>(name, table);
}

/// Two steps, from the options to the adapter.
void train_two_steps(const std::string& tables) {
  static Plugins plugins(Plugins::search_path({}));
  Document document = Document::from_text(tables, "exp.toml");
  AdapterStack stack = read_adapters(document, plugins);
  const auto optimizer = make<Optimizer>(document, plugins);
  const auto scheduler = make<Scheduler>(document, plugins);
  const auto clipping = make<GradientClipping>(document, plugins);
  const auto precision = make<Precision>(document, plugins);
  const auto objective = make<Objective>(document, plugins);
  document.finish();
  const auto model = test::tiny_model(test::tiny_config(2, /*attention_bias=*/true), precision->base_dtype());
  TrainingOptions options;
  options.max_steps = 2;
  options.eval_every = 1;
  const Dataset data = test_data();
  torch::manual_seed(3);
  attach_adapters(stack, *model, precision->adapter_dtype(),
                  calibration(*model, *precision, *objective, data, options, false, 20));
  for (ParamGroup& group : groups_of(stack, *model)) optimizer->add_param_group(std::move(group));
  std::vector<Adapter*> adapters;
  for (const NamedAdapter& adapter : stack) adapters.push_back(adapter.adapter.get());
  MemoryMeter memory{torch::kCPU};
  TrainingSession run{.model = *model,
                      .optimizer = *optimizer,
                      .scheduler = *scheduler,
                      .clipping = *clipping,
                      .precision = *precision,
                      .objective = *objective,
                      .adapters = adapters,
                      .data = data,
                      .eval_data = &data,
                      .max_length = 20,
                      .options = options,
                      .memory = memory,
                      .callbacks = {}};
  train(run);
}

/// How it ended, if neither the option's bounds nor the numbers of a step were the reason.
std::string wrong_end(const std::string& tables) {
  try {
    train_two_steps(tables);
  } catch (const ConfigError&) {
  } catch (const DivergedError&) {
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

std::string lora_unless(const std::string& kind) { return kind == "adapter" ? "" : table_of("adapter/lora", "r", "4"); }

}  // namespace

TEST_CASE("the edge of an option's type trains or is refused by the option") {
  Plugins plugins(Plugins::search_path({}));
  int64_t values = 0;
  for (const PluginStatus& plugin : plugins.scan()) {
    const std::string name = plugin.kind + "/" + plugin.name;
    CHECK(wrong_end(table_of(name) + lora_unless(plugin.kind)) == "");
    for (const OptionInfo& option : plugins.describe(plugin.kind, plugin.name)) {
      const bool is_integer = option.type == "integer";
      if (!is_integer && option.type != "number") continue;
      for (const std::string& value : is_integer ? kIntegers : kNumbers) {
        INFO(name << " " << option.key << " = " << value);
        CHECK(wrong_end(table_of(name, option.key, value) + lora_unless(plugin.kind)) == "");
        ++values;
      }
    }
  }
  CHECK(values > 1000);
}

TEST_CASE("a schedule's negative or undefined learning rate is an error of its plugin") {
  struct Wrong : Scheduler {
    explicit Wrong(double rate) : rate_(rate) {}
    double do_lr(int64_t, int64_t, double) const override { return rate_; }
    double rate_;
  };
  for (const double rate : {-1e-9, double(NAN), double(INFINITY)})
    CHECK_THROWS_AS(Wrong(rate).lr(0, 1, 1), PluginError);
  CHECK(Wrong(0).lr(0, 1, 1) == 0);
}
