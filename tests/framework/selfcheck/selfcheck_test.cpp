// Shows for selfcheck: every plugin of the tree passes, of every kind; the mistaken fixtures pass where they make no
// mistake; and each mistake is found by the check that is for it.
#include "peft/selfcheck/selfcheck.h"

#include <torch/types.h>

#include <map>
#include <set>

#include "peft/base/error.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;

namespace {

Plugins all_plugins() { return Plugins(Plugins::search_path({PEFT_MISTAKEN})); }

/// "" if all checks pass; else the lines of those that do not.
std::string failures(const std::string& kind, const std::string& name, const std::string& options = "") {
  Plugins plugins = all_plugins();
  std::string text;
  const std::vector<CheckResult> results = selfcheck(plugins, kind, name, options);
  REQUIRE(!results.empty());
  for (const CheckResult& result : results)
    if (!result.passed) text += result.name + ": " + result.detail + "\n";
  return text;
}

/// Where the defaults do not suit a model of width 16 with 40 tokens.
const std::map<std::string, StringList> options = {
    {"adapter/adalora", {"total_step = 20\ntinit = 10"}},
    {"adapter/c3a", {"block_size = 8"}},
    {"adapter/fourierft", {"n_frequency = 50\nscaling = 30"}},
    {"adapter/gralora", {"r = 4"}},
    {"adapter/lora",
     {"", "target_modules = \"all-linear\"\nlora_dropout = 0.3\nr = 3", "init_lora_weights = \"pissa\"",
      "target_modules = [\"embed_tokens\", \"lm_head\", \"q_proj\"]"}},
    {"adapter/miss", {"r = 8", "r = 8\ninit_weights = \"bat\""}},
    {"adapter/oft", {"oft_block_size = 8\nr = 0"}},
    {"adapter/road", {"group_size = 8"}},
    {"adapter/shira", {"r = 2"}},
    {"adapter/trainable_tokens", {"token_indices = [4, 5, 9]"}},
    {"adapter/vblora", {"num_vectors = 10\nvector_length = 8"}},
    {"adapter/vera", {"r = 8"}},
    {"adapter/randlora", {"r = 6\nrandlora_alpha = 12"}},
    {"adapter/waveft", {"n_frequency = 50"}},
    {"optimizer/galore", {"", "rank = 8\nupdate_proj_gap = 4"}},
    {"optimizer/adafactor", {"", "beta1 = 0.9\nscale_parameter = true"}},
    {"optimizer/sgd", {"", "momentum = 0.9\nnesterov = true"}},
    {"optimizer/sophia", {"", "update_period = 3"}},
    {"scheduler/cosine", {"", "warmup_ratio = 0.1\nmin_lr = 1e-5"}},
    {"scheduler/reduce_on_plateau", {"", "patience = 1\ncooldown = 2\nfactor = 0.5"}},
    {"scheduler/wsd", {"", "warmup_steps = 3\ndecay_steps = 5"}},
    {"clipping/norm", {"", "per = \"group\"\nmax_norm = 0.5", "per = \"tensor\""}},
    {"clipping/zclip", {"", "warmup_steps = 4\nmax_norm = 0"}},
};

struct Mistake {
  std::string kind, mistake, check;
};

}  // namespace

TEST_CASE("every plugin of the tree passes", "[selfcheck]") {
  Plugins plugins(Plugins::search_path({}));
  std::set<std::string> kinds;
  for (const PluginStatus& plugin : plugins.scan()) {
    if (has(plugin.problem, "a folder searched earlier has")) continue;  // the same folder, named by $PEFT_PLUGIN_PATH
    REQUIRE(plugin.problem == "");
    kinds.insert(plugin.kind);
    const std::string name = plugin.kind + "/" + plugin.name;
    const auto given = options.find(name);
    for (const std::string& toml : given == options.end() ? StringList{""} : given->second) {
      INFO(name << " " << toml);
      CHECK(failures(plugin.kind, plugin.name, toml) == "");
    }
  }
  const StringList wanted = plugin_kind_names();
  CHECK(kinds == std::set<std::string>(wanted.begin(), wanted.end()));
}

TEST_CASE("the fixtures pass without a mistake", "[selfcheck]") {
  for (const std::string& kind : plugin_kind_names()) {
    INFO(kind);
    CHECK(failures(kind, "mistaken") == "");
  }
}

TEST_CASE("each mistake is found", "[selfcheck]") {
  const std::vector<Mistake> mistakes = {
      {"adapter", "unregistered", "is a registered parameter: "},
      {"adapter", "unregistered A", "is a registered parameter: "},
      {"adapter", "nothing registered", "no parameter is registered"},
      {"adapter", "trained buffer", "the optimizer does not train"},
      {"adapter", "forgets one", "the optimizer does not train"},
      {"adapter", "one twice", "the adapter's param groups have a parameter twice"},
      {"adapter", "stray", "'stray' of a param group is not registered in a layer"},
      {"adapter", "unused", "every trainable tensor gets a gradient: none for"},
      {"adapter", "no gradient", "every trainable tensor gets a gradient: none for"},
      {"adapter", "counts", "recomputed activations give the same gradients: "},
      {"adapter", "writes a buffer", "recomputed activations give the same gradients: "},
      {"adapter", "promotes", "it trains in bf16: "},
      {"adapter", "fp32", "the result is fp32 [11, 16]; it must be fp64 [11, 16]"},
      {"adapter", "shape", "the result is fp64 [11, 15]; it must be fp64 [11, 16]"},
      {"adapter", "undefined", "the result is an undefined tensor"},
      {"adapter", "argument", "the argument of next is fp16 [11, 16]"},
      {"adapter", "undefined argument", "the argument of next is an undefined tensor"},
      {"adapter", "auxiliary", "auxiliary_loss failed: it depends on a tensor"},
      {"optimizer", "ascends", "its steps reduce a quadratic: "},
      {"optimizer", "still", "its steps reduce a quadratic: "},
      {"optimizer", "decays all", "it changed a parameter without a gradient"},
      {"optimizer", "one rate", "a group whose learning rate is 0"},
      {"optimizer", "dtype", "it changed the dtype or the shape"},
      {"optimizer", "divides by the norm", "gradients of 0 leave finite values: "},
      {"optimizer", "keeps gradients", "zero_grad clears every gradient: "},
      {"optimizer", "eval", "eval and train swap the parameters: "},
      {"optimizer", "forgets", "the saved state restores it: "},
      {"optimizer", "bytes", "state_bytes is the size of its state: "},
      {"optimizer", "accepts anything", "it refuses a state that is not its own: "},
      {"scheduler", "nan", "every learning rate is finite and not negative: "},
      {"scheduler", "negative", "every learning rate is finite and not negative: "},
      {"scheduler", "counts", "the learning rate is a function of the step: "},
      {"scheduler", "floor", "a learning rate of 0 remains 0: "},
      {"scheduler", "undeclared", "needs_evaluations must return true"},
      {"scheduler", "forgets", "the saved state restores it: "},
      {"scheduler", "accepts anything", "it refuses a state that is not its own: "},
      {"clipping", "negative", "the norm of the gradients is -"},
      {"clipping", "always 0", "it returned 0, but the gradients are not 0"},
      {"clipping", "half", "the norm was"},
      {"clipping", "the norm after", "the norm was"},
      {"clipping", "raises", "it raised the norm"},
      {"clipping", "changes parameters", "it changed a parameter"},
      {"clipping", "divides by 0", "gradients of 0 remain 0: "},
      {"clipping", "hides NaN", "a gradient that is NaN skips the step: "},
      {"clipping", "forgets", "the saved state restores it: "},
      {"precision", "integer", "is not a floating-point dtype"},
      {"precision", "detaches", "gradients are those of fp64"},
      {"precision", "nothing", "it must return the loss, one number"},
      {"precision", "keeps the scale", "gradients are those of fp64"},
      {"precision", "hides infinity", "gradients that overflow are reported"},
      {"precision", "forgets", "the saved state restores it: "},
      {"objective", "mean", "the losses of micro-batches add up"},
      {"objective", "totals", "the totals of two batches do not add up"},
      {"objective", "counts", "the losses of micro-batches add up"},
      {"objective", "detached", "it has no gradient"},
      {"objective", "vector", "it must return the loss, one floating-point number, not fp64 [3]"},
      {"objective", "integer", "it must return the loss, one floating-point number, not Long []"},
      {"objective", "nothing", "it must return the loss, one floating-point number"},
      {"objective", "nan", "it is nan"},
      {"objective", "own parameter", "it depends on a tensor that is not a parameter of an adapter"},
      {"objective", "order", "with the examples in another order"},
      {"objective", "mean of batches", "the figure 'loss' depends on the batch size"},
      {"objective", "counts evaluations", "an evaluation changes the state"},
      {"objective", "likelihood", "the loss is the negative log-likelihood, as declared: "},
      {"objective", "no format", "formats returns none"},
      {"objective", "forgets", "the saved state restores it: "},
  };
  for (const Mistake& mistake : mistakes) {
    INFO(mistake.kind << ": " << mistake.mistake);
    const std::string found = failures(mistake.kind, "mistaken", "mistake = \"" + mistake.mistake + "\"");
    INFO(found);
    CHECK(has(found, mistake.check));
  }
}

TEST_CASE("an adapter that trains the frozen base is refused", "[selfcheck]") {
  const std::string found =
      message_of<PluginError>([] { failures("adapter", "mistaken", "mistake = \"trains the base\""); });
  CHECK(has(found, "peft_adapter_mistaken.so: attach failed: it made 'model.embed_tokens.weight' of the frozen base"));
}

TEST_CASE("an unknown kind and wrong options are refused", "[selfcheck]") {
  Plugins plugins = all_plugins();
  CHECK(has(message_of<ConfigError>([&] { selfcheck(plugins, "adaptor", "lora", ""); }), "is not a plugin kind"));
  CHECK(has(message_of<ConfigError>([&] { selfcheck(plugins, "adapter", "lora", "rank = 3"); }), "'rank'"));
  CHECK(has(message_of<PluginError>([&] { selfcheck(plugins, "optimizer", "nonesuch", ""); }), "nonesuch"));
}
