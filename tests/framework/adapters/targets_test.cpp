// Targets: HF PEFT's meaning of target_modules, exclude_modules, layers_to_transform, layers_pattern,
// modules_to_save, rank_pattern and alpha_pattern; whatever matches nothing is reported with the names in the model.
#include "peft/adapters/targets.h"

#include <torch/types.h>

#include <nlohmann/json.hpp>

#include "peft/options/document.h"
#include "selfcheck/tiny_model.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;

namespace {

StringList selected(const Model& model, const Targets& targets) {
  StringList paths;
  for (const Site* site : select_sites(model, targets)) paths.push_back(site->path());
  return paths;
}

const std::string layer0 = "model.layers.0.", layer1 = "model.layers.1.";

}  // namespace

TEST_CASE("a list matches full names and suffixes at dots, in model order") {
  const auto model = test::tiny_model(test::tiny_config());
  CHECK(selected(*model, {.target_modules = StringList{"v_proj", "q_proj"}}) ==
        StringList{layer0 + "self_attn.q_proj", layer0 + "self_attn.v_proj", layer1 + "self_attn.q_proj",
                   layer1 + "self_attn.v_proj"});
  CHECK(selected(*model, {.target_modules = StringList{"lm_head"}}) == StringList{"lm_head"});
  CHECK(selected(*model, {.target_modules = StringList{"embed_tokens"}}) == StringList{"model.embed_tokens"});
  CHECK(selected(*model, {.target_modules = StringList{"1.mlp.up_proj"}}) == StringList{layer1 + "mlp.up_proj"});
  CHECK(has(message_of<ConfigError>([&] { selected(*model, {.target_modules = StringList{"proj"}}); }),
            "'proj' matches nothing"));
}

TEST_CASE("a string is a regex over the full name, in Python's syntax") {
  const auto model = test::tiny_model(test::tiny_config());
  const auto regex = [&](const std::string& text) { return selected(*model, {.target_modules = text}); };
  CHECK(regex(R"(.*\.(q|k)_proj)").size() == 4);
  CHECK(regex(R"(.*\.self_attn\.q_pro|.*\.0\.mlp\.(?P<which>up|gate)_proj)") ==
        StringList{layer0 + "mlp.gate_proj", layer0 + "mlp.up_proj"});
  CHECK(regex(R"(model\.layers\.\d+\.mlp\.down_proj)").size() == 2);
  CHECK(regex(R"((?i)LM_HEAD)") == StringList{"lm_head"});
  CHECK(has(message_of<ConfigError>([&] { regex("q_proj"); }),
            "target_modules: a string is one regular expression for a module's full name, and 'q_proj' matches none; "
            "write [\"q_proj\"]"));
  CHECK(has(message_of<ConfigError>([&] { regex("q_proj,v_proj"); }), "write [\"q_proj\", \"v_proj\"]"));
  CHECK(has(message_of<ConfigError>([&] { regex("q_proj|k_proj"); }), "write [\"q_proj\", \"k_proj\"]"));
  CHECK(has(message_of<ConfigError>([&] { regex("q_proj,w_proj"); }), "'q_proj,w_proj' matches nothing"));
  CHECK(has(message_of<ConfigError>([&] { regex("(q_proj"); }),
            "[adapter] target_modules: the regular expression '(q_proj'"));
}

TEST_CASE("a regex that backtracks without end is an error") {
  const auto model = test::tiny_model(test::tiny_config());
  CHECK(has(message_of<ConfigError>(
                [&] { selected(*model, {.target_modules = std::string(R"((\w|[a-z._0-9])*(\w|[a-z._0-9])*X)")}); }),
            "gave up"));
  CHECK(has(message_of<ConfigError>([&] { selected(*model, {.target_modules = std::string(20000, 'a')}); }),
            "longer than"));
}

TEST_CASE("all-linear is every linear layer except the output head") {
  for (const bool tied : {false, true}) {
    const auto model = test::tiny_model(test::tiny_config(2, false, tied));
    for (const std::string word : {"all-linear", "All-Linear"}) {
      const StringList paths = selected(*model, {.target_modules = word});
      CHECK(paths.size() == 14);
      CHECK(std::find(paths.begin(), paths.end(), "lm_head") == paths.end());
      CHECK(std::find(paths.begin(), paths.end(), "model.embed_tokens") == paths.end());
    }
    CHECK(selected(*model,
                   {.target_modules = std::string("all-linear"), .exclude_modules = StringList{"down_proj", "lm_head"}})
              .size() == 12);
    nlohmann::ordered_json config;
    write_targets(*model, {.target_modules = std::string("all-linear")}, config);
    CHECK(config["target_modules"] ==
          StringList{"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"});
    CHECK(config["exclude_modules"].is_null());
  }
}

TEST_CASE("exclusions come first, by name or regex") {
  const auto model = test::tiny_model(test::tiny_config());
  const StringOrList q = StringList{"q_proj"};
  CHECK(selected(*model, {.target_modules = q, .exclude_modules = StringList{"0.self_attn.q_proj"}}) ==
        StringList{layer1 + "self_attn.q_proj"});
  CHECK(selected(*model, {.target_modules = q, .exclude_modules = std::string(R"(.*\.1\..*)")}) ==
        StringList{layer0 + "self_attn.q_proj"});
  CHECK(has(
      message_of<ConfigError>([&] { selected(*model, {.target_modules = q, .exclude_modules = StringList{"q_prj"}}); }),
      "exclude_modules: 'q_prj' matches nothing; did you mean 'q_proj'?"));
  CHECK(has(message_of<ConfigError>([&] { selected(*model, {.target_modules = q, .exclude_modules = q}); }),
            "no module is left"));
}

TEST_CASE("layer indices filter what a suffix matched") {
  const auto model = test::tiny_model(test::tiny_config(3));
  const StringOrList q = StringList{"q_proj"};
  CHECK(selected(*model, {.target_modules = q, .layers_to_transform = IntList{2, 0}}) ==
        StringList{layer0 + "self_attn.q_proj", "model.layers.2.self_attn.q_proj"});
  CHECK(selected(*model,
                 {.target_modules = q, .layers_to_transform = IntList{1}, .layers_pattern = std::string("layers")}) ==
        StringList{layer1 + "self_attn.q_proj"});
  CHECK(selected(*model,
                 {.target_modules = StringList{"q_proj", layer1 + "mlp.up_proj"}, .layers_to_transform = IntList{0}}) ==
        StringList{layer0 + "self_attn.q_proj", layer1 + "mlp.up_proj"});
  CHECK(has(
      message_of<ConfigError>([&] { selected(*model, {.target_modules = q, .layers_to_transform = IntList{0, 3}}); }),
      "layers_to_transform: no target is in layer 3"));
  CHECK_THROWS_AS(
      selected(*model,
               {.target_modules = q, .layers_to_transform = IntList{0}, .layers_pattern = StringList{"blocks", "h"}}),
      ConfigError);
}

TEST_CASE("one error reports everything that matches nothing, with the names in the model") {
  const auto model = test::tiny_model(test::tiny_config());
  const Targets wrong{.target_modules = StringList{"q_porj", "input_layernorm", "mlp", "v_proj"},
                      .exclude_modules = StringList{"nope", "self_attn"}};
  const std::string error = message_of<ConfigError>([&] { select_sites(*model, wrong); });
  CHECK(has(error, "target_modules: 'q_porj' matches nothing; did you mean 'q_proj'?"));
  CHECK(has(error, "target_modules: 'input_layernorm' matches nothing"));
  CHECK(has(error, "target_modules: 'mlp' matches nothing"));
  CHECK(has(error, "exclude_modules: 'nope' matches nothing"));
  CHECK(has(error, "exclude_modules: 'self_attn' matches nothing"));  // PEFT would exclude it and keep its parts
  CHECK_FALSE(has(error, "'v_proj' matches"));
  CHECK(has(error, "q_proj (2), k_proj (2), v_proj (2)"));
  CHECK(has(error, "lm_head (1)"));
}

TEST_CASE("modules to save train in full and are not adapted") {
  const auto model = test::tiny_model(test::tiny_config());
  const Targets targets{.target_modules = StringList{"q_proj", "up_proj"},
                        .modules_to_save = StringList{"mlp", "lm_head", "norm"}};
  CHECK(selected(*model, targets) == StringList{layer0 + "self_attn.q_proj", layer1 + "self_attn.q_proj"});
  StringList trained;
  for (const Site* site : sites_to_save(*model, targets))
    for (const std::string& parameter : site->parameter_names()) trained.push_back(site->path() + "." + parameter);
  std::sort(trained.begin(), trained.end());
  StringList expected = {"lm_head.weight", "model.norm.weight"};
  for (const std::string& layer : {layer0, layer1})
    for (const char* name :
         {"input_layernorm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
      expected.push_back(layer + name + ".weight");
  std::sort(expected.begin(), expected.end());
  CHECK(trained == expected);  // "norm" means every name that ends so, as in PEFT
  CHECK(has(message_of<ConfigError>([&] { sites_to_save(*model, {.modules_to_save = StringList{"lm_heads"}}); }),
            "modules_to_save: 'lm_heads' matches nothing; did you mean 'lm_head'?"));
}

TEST_CASE("patterns match suffixes at dots") {
  const auto model = test::tiny_model(test::tiny_config());
  const auto sites = select_sites(*model, {.target_modules = StringList{"q_proj", "v_proj"}});
  const auto ranks = [&](const IntMap& patterns) {
    return pattern_values<int64_t>(patterns, sites, 8, "rank_pattern");
  };
  CHECK(ranks({}) == IntList{8, 8, 8, 8});
  CHECK(ranks({{"q_proj", 4}}) == IntList{4, 8, 4, 8});
  CHECK(ranks({{R"(layers\.1\..*v_proj)", 2}, {"^model.layers.0.self_attn.q_proj", 3}}) == IntList{3, 8, 8, 2});
  CHECK(ranks({{"q_proj", 4}, {"0.self_attn.(q|v)_proj", 4}}) == IntList{4, 4, 4, 8});
  CHECK(has(message_of<ConfigError>([&] { ranks({{"_proj", 4}}); }), "rank_pattern: '_proj' matches nothing"));
  CHECK(has(message_of<ConfigError>([&] { ranks({{"k_proj", 4}}); }), "rank_pattern: 'k_proj' matches nothing"));
  CHECK(has(message_of<ConfigError>([&] { ranks({{"q_proj", 4}, {"0.self_attn.q_proj", 5}}); }),
            "give different values to 'model.layers.0.self_attn.q_proj'"));
}

TEST_CASE("contradicting options are reported with their location") {
  const auto errors = [](const std::string& toml) {
    auto document = Document::from_text("[adapter]\n" + toml, "exp.toml");
    Targets targets{.target_modules = StringList{"q_proj"}};
    Options in = document.table("adapter");
    read_targets(in, targets);
    document.finish();
  };
  CHECK(has(message_of<ConfigError>([&] { errors("target_modules = \".*\"\nlayers_to_transform = [1]\n"); }),
            "exp.toml:3:"));
  CHECK(has(message_of<ConfigError>([&] { errors("layers_pattern = \"layers\"\n"); }), "needs layers_to_transform"));
  CHECK(has(message_of<ConfigError>([&] { errors("target_modules = []\n"); }), "must name at least one module"));
  CHECK_NOTHROW(errors("layers_pattern = \"layers\"\nlayers_to_transform = [1]\n"));
}
