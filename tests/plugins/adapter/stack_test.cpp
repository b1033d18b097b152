// Several adapters on one model: the first declared is the outermost; merging them, innermost first, gives the same
// outputs in either order; each has its own tensors, names, learning rate and folder; incompatible adapters are refused
// and named.
#include <torch/types.h>
#include <torch/utils.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "peft/adapters/hf_files.h"
#include "peft/adapters/hf_format.h"
#include "peft/adapters/stack.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "plugins/load.h"
#include "selfcheck/tiny_model.h"
#include "support/message.h"
#include "support/test.h"

using namespace peft;
using peft::test::has;
using peft::test::message_of;
using torch::Tensor;

namespace {

const std::string lora = "[[adapter]]\nname = \"lora\"\nr = 4\ninit_lora_weights = false\ntarget_modules = ";
const std::string ia3 = "[[adapter]]\nname = \"ia3\"\ninit_ia3_weights = false\ntarget_modules = ";
const std::string all = "\"all-linear\"\n";

struct Stacked {
  explicit Stacked(const std::string& toml) : document(Document::from_text(toml, "exp.toml")) {
    stack = read_adapters(document, plugins);
    document.finish();
    torch::manual_seed(7);
    attach_adapters(stack, *model, torch::kDouble, {});
    model->eval();
  }
  Tensor logits() const { return model->logits(model->hidden_states(test::tiny_tokens(*model, 9))); }
  Document document;
  Plugins plugins{Plugins::search_path({})};
  std::shared_ptr<CausalLm> model = test::tiny_model(test::tiny_config(2, true), torch::kDouble);
  AdapterStack stack;
};

double distance(const Tensor& a, const Tensor& b) { return ((a - b).abs().max() / b.abs().max()).item<double>(); }

Tensor merged_logits(const CausalLm& model) {
  const torch::NoGradGuard no_grad;
  const auto plain = std::make_shared<CausalLm>(model.config());
  for (const Site* site : model.sites())
    plain->find(site->path())->load_base_weight(site->merged_weight(site->dense_base()).value());
  return plain->logits(plain->hidden_states(test::tiny_tokens(*plain, 9)));
}

}  // namespace

TEST_CASE("two adapters on one site, merged in either order, give the same outputs") {
  const torch::NoGradGuard no_grad;
  const std::string oft = "[[adapter]]\nname = \"oft\"\noft_block_size = 4\ninit_weights = false\ntarget_modules = ";
  const std::string dora = lora + all + "use_dora = true\n";
  const std::string fed = ia3 + "[\"down_proj\", \"v_proj\"]\nfeedforward_modules = [\"down_proj\"]\n";
  for (const std::string& toml :
       {ia3 + all + lora + all, lora + all + ia3 + all, fed + lora + all, lora + all + fed, oft + all + lora + all,
        lora + all + oft + all, lora + all + ia3 + all + oft + all, lora + all + lora + all, ia3 + all + dora}) {
    const Stacked s(toml);
    INFO(toml);
    CHECK(distance(merged_logits(*s.model), s.logits()) < 1e-12);
  }
  const Tensor outside = Stacked(ia3 + all + lora + all).logits(), inside = Stacked(lora + all + ia3 + all).logits();
  CHECK(distance(outside, inside) > 1e-3);  // the order counts
}

TEST_CASE("the first declared is the outermost") {
  const Stacked s(ia3 + "[\"q_proj\"]\n" + lora + "[\"q_proj\"]\n");
  const auto& layers = s.model->find("model.layers.0.self_attn.q_proj")->layers();
  REQUIRE(layers.size() == 2);
  CHECK(layers[0] == s.stack[0].adapter->layers_on(*s.model->find("model.layers.0.self_attn.q_proj")).front());
  CHECK(s.stack[0].plugin == "ia3");
}

TEST_CASE("each adapter has its own name, learning rate and parameters") {
  const Stacked s(lora + "[\"q_proj\"]\nbias = \"lora_only\"\nlr = 0.5\nloraplus_lr_ratio = 4.0\n" + lora +
                  "[\"q_proj\", \"v_proj\"]\nmodules_to_save = [\"lm_head\"]\n" + ia3 +
                  "[\"k_proj\"]\nadapter_name = \"mine\"\n");
  CHECK(s.stack[0].name == "default");
  CHECK(s.stack[1].name == "lora");
  CHECK(s.stack[2].name == "mine");

  StringList groups;
  std::set<std::string> names;
  std::size_t parameters = 0;
  for (const ParamGroup& group : groups_of(s.stack, *s.model)) {
    groups.push_back(group.name);
    if (group.name == "default") CHECK(group.initial_lr == 0.5);
    if (group.name == "default B") CHECK(group.initial_lr == 2.0);
    if (group.name == "mine") CHECK_FALSE(group.initial_lr.has_value());
    for (const auto& [name, parameter] : group.parameters) names.insert(name), ++parameters;
  }
  CHECK(groups == StringList{"default", "default B", "lora", "mine"});
  CHECK(names.size() == parameters);  // an optimizer's state goes by them
  CHECK(parameters == s.model->trainable().size());

  CHECK(s.stack[1].adapter->hf_format().to_hf(*s.model).contains("base_model.model.lm_head.weight"));
  for (const std::size_t other : {0, 2})
    CHECK_FALSE(s.stack[other].adapter->hf_format().to_hf(*s.model).contains("base_model.model.lm_head.weight"));
  CHECK(s.stack[2].adapter->hf_format().to_hf(*s.model).size() == 2);
}

TEST_CASE("several adapters are saved, loaded and resolved in order") {
  const std::string folder = (std::filesystem::temp_directory_path() / "peft_stack_test").string();
  std::filesystem::remove_all(folder);
  const std::string toml = ia3 + all + lora + "[\"v_proj\"]\n";
  Stacked first(toml);
  save_adapters(folder, first.stack, *first.model);
  CHECK(read_json(folder + "/adapter_config.json").at("peft_type") == "IA3");
  CHECK(read_json(folder + "/lora/adapter_config.json").at("peft_type") == "LORA");

  Stacked second(toml);
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : second.model->trainable()) Tensor(tensor).add_(1);
  for (const NamedAdapter& one : second.stack)
    load_adapter_weights(folder_of(one, folder), *one.adapter, *second.model, false);
  CHECK(torch::equal(first.logits(), second.logits()));

  Stacked again(first.document.resolved());
  REQUIRE(again.stack.size() == 2);
  CHECK(again.stack[1].name == "lora");
  CHECK(torch::equal(first.logits(), again.logits()));

  const Stacked on("[[adapter]]\ninit_from = \"" + folder + "\"\n[[adapter]]\ninit_from = \"" + folder + "/lora\"\n");
  CHECK(on.stack[0].plugin == "ia3");
  CHECK(on.stack[1].name == "lora");
  CHECK(torch::equal(first.logits(), on.logits()));
  std::filesystem::remove_all(folder);
}

TEST_CASE("an adapter inside one that replicates layers adapts the deeper model") {
  const std::string deep = lora + "[\"q_proj\"]\nlayer_replication = [[0, 2], [0, 1]]\n";
  const Stacked s(deep + ia3 + "[\"k_proj\"]\n");
  const Site* last = s.model->find("model.layers.2.self_attn.k_proj");
  REQUIRE(last != nullptr);
  CHECK(s.stack[1].adapter->layers_on(*last).size() == 1);
  CHECK(s.stack[1].adapter->hf_format().to_hf(*s.model).contains(
      "base_model.model.model.layers.2.self_attn.k_proj.ia3_l"));
  CHECK(s.stack[0].adapter->hf_format().config(*s.model)["layer_replication"].dump() == "[[0,2],[0,1]]");
  CHECK(distance(merged_logits(*s.model), s.logits()) < 1e-12);
  const Stacked again(s.document.resolved());
  CHECK(torch::equal(again.logits(), s.logits()));
  CHECK(has(message_of<ConfigError>([&] { Stacked(ia3 + "[\"k_proj\"]\n" + deep); }),
            "declare the adapter that replicates layers first"));
}

TEST_CASE("incompatible adapters are refused") {
  const auto error_of = [](const std::string& toml) { return message_of<ConfigError>([&] { Stacked s(toml); }); };
  CHECK(has(error_of(lora + all + "adapter_name = \"a\"\n" + ia3 + all + "adapter_name = \"a\"\n"),
            "exp.toml:11:16: [adapter] 'adapter_name' is the name of another adapter"));
  for (const char* name : {"a.b", "../up", "", "checkpoint-3"})
    CHECK(has(error_of(lora + all + "adapter_name = \"" + name + "\"\n"), "'adapter_name' must have only letters"));
  CHECK(has(error_of(lora + all + "lr = -1.0\n"), "'lr' must be 0 or more"));
  CHECK(has(error_of(lora + all + "[[adapter]]\nnane = \"lora\"\n"), "unknown key 'nane'; did you mean 'name'?"));
  CHECK(has(error_of(lora + all + "[[adapter]]\n"), "exp.toml:6:1: [adapter] 'name' must be given"));

  const std::string in_full = "modules_to_save = [\"lm_head\"]\n";
  CHECK(has(error_of(lora + "[\"q_proj\"]\n" + in_full + ia3 + "[\"k_proj\"]\n" + in_full),
            "'lm_head.weight' is trained by another adapter"));
  const std::string dora = lora + all + "use_dora = true\n";
  const std::string hira = "[[adapter]]\nname = \"hira\"\ntarget_modules = \"all-linear\"\n";
  for (const std::string& outer : {dora, hira})
    CHECK(has(error_of(outer + ia3 + "[\"v_proj\"]\n"),
              "v_proj': an adapter around it computes with the frozen weights"));
  CHECK(has(error_of(lora + "[\"q_proj\"]\nuse_dora = true\n" + ia3 + "[\"k_proj\"]\nmodules_to_save = [\"q_proj\"]\n"),
            "q_proj': an adapter around it computes with the frozen weights"));
}
