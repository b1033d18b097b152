// LoRA: attaching leaves the outputs unchanged and the base never changes; y = Wx + b + scale · B·A·x (+ bias), with
// the scale by alpha, rank and rsLoRA, ranks and alphas by pattern; initial values have the right distribution, equal
// in every dtype; dropout applies only in training; merging and the fused path match forward; names are those of HF
// PEFT's files.
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "peft/adapters/adapter.h"
#include "peft/adapters/hf_format.h"
#include "peft/adapters/targets.h"
#include "plugins/load.h"
#include "selfcheck/tiny_model.h"
#include "support/test.h"

using namespace peft;
using torch::Tensor;

namespace {

struct Adapted {
  std::shared_ptr<CausalLm> model;
  std::unique_ptr<Adapter> adapter;
  PackedTokens input;
  Tensor logits() const { return model->logits(model->hidden_states(input)); }
  Tensor parameter(const std::string& name) const {
    for (const auto& [known, tensor] : model->trainable())
      if (known == name) return tensor;
    throw std::runtime_error("no parameter " + name);
  }
};

Adapted adapted(const std::string& toml, std::shared_ptr<CausalLm> model, torch::Dtype dtype = torch::kFloat) {
  Adapted a;
  a.model = std::move(model);
  a.adapter = test::load<Adapter>("lora", toml);
  torch::manual_seed(7);
  a.adapter->attach(*a.model, dtype);
  a.input = test::tiny_tokens(*a.model, 9);
  return a;
}

Adapted adapted(const std::string& toml, torch::Dtype dtype = torch::kFloat) {
  return adapted(toml, test::tiny_model(test::tiny_config(2, true)), dtype);
}

/// Moves every trainable parameter away from its initial value.
void randomize_weights(const Model& model) {
  const torch::NoGradGuard guard;
  for (const auto& [name, tensor] : model.trainable())
    tensor.add_(torch::randn(tensor.sizes()).to(tensor.dtype()), 0.1);
}

bool close(const Tensor& a, const Tensor& b, double tolerance = 1e-5) {
  return torch::allclose(a, b, tolerance, tolerance);
}

std::string error_of(const std::string& toml, std::shared_ptr<CausalLm> model) {
  try {
    adapted(toml, std::move(model));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::set<std::string> keys(const StateDict& state) {
  std::set<std::string> all;
  for (const auto& [key, tensor] : state) all.insert(key);
  return all;
}

const std::string q0 = "model.layers.0.self_attn.q_proj.", v1 = "model.layers.1.self_attn.v_proj.";

}  // namespace

TEST_CASE("attaching LoRA leaves the outputs unchanged, and the base never changes") {
  const auto model = test::tiny_model(test::tiny_config(2, true));
  const Tensor before = model->logits(model->hidden_states(test::tiny_tokens(*model, 9)));
  std::vector<Tensor> base;
  for (const auto& [name, tensor] : model->frozen()) base.push_back(tensor.clone());
  const Adapted a = adapted("target_modules = \"all-linear\"", model);
  CHECK(model->trainable().size() == 2 * 14);
  CHECK(close(a.logits(), before));
  double first = 0, last = 0;
  for (int step = 0; step < 30; ++step) {
    const Tensor loss = at::cross_entropy_loss(a.logits(), a.input.ids);
    (step == 0 ? first : last) = loss.item<double>();
    loss.backward();
    const torch::NoGradGuard guard;
    for (auto [name, parameter] : model->trainable()) {
      parameter.add_(parameter.grad(), -0.5);
      parameter.mutable_grad().reset();
    }
  }
  CHECK(last < 0.7 * first);
  for (std::size_t i = 0; i < base.size(); ++i) CHECK(torch::equal(base[i], model->frozen()[i].second));
  model->enable_adapters(false);
  CHECK(torch::equal(a.logits(), before));
}

TEST_CASE("a linear layer's update is scale · B·A·x, with rsLoRA's scale, patterns and a bias") {
  struct Case {
    std::string toml;
    double scale;
    int64_t rank;
  };
  const auto [toml, scale, rank] =
      GENERATE(Case{"", 1, 8}, Case{"r = 4\nlora_alpha = 6", 1.5, 4}, Case{"lora_alpha = -0.5", -0.0625, 8},
               Case{"r = 16\nlora_alpha = 8\nuse_rslora = true", 2, 16},
               Case{"rank_pattern = { \"0.self_attn.q_proj\" = 2 }\nalpha_pattern = { q_proj = 5 }", 2.5, 2},
               Case{"lora_bias = true\nlora_alpha = 16", 2, 8});
  for (const bool fused : {true, false}) {
    const Adapted a = adapted(toml);
    randomize_weights(*a.model);
    a.model->enable_fusion(fused);
    auto* site = dynamic_cast<Linear*>(a.model->find("model.layers.0.self_attn.q_proj"));
    const Tensor x = torch::randn({5, 16});
    const Tensor A = a.parameter(q0 + "lora_A.weight"), B = a.parameter(q0 + "lora_B.weight");
    CHECK(A.sizes() == at::IntArrayRef({rank, 16}));
    CHECK(B.sizes() == at::IntArrayRef({16, rank}));
    Tensor update = x.mm(A.t()).mm(B.t());
    if (toml.starts_with("lora_bias")) update = update + a.parameter(q0 + "lora_B.bias");
    const Tensor weight = site->dense();
    CHECK(close(site->forward(x), torch::linear(x, weight, site->base_bias()) + scale * update));
  }
}

TEST_CASE("initial values have their distribution and are the same in every dtype") {
  const auto values = [](const std::string& toml, torch::Dtype dtype = torch::kFloat) {
    auto config = test::tiny_config(1);
    config.hidden_size = 100;
    const Adapted a = adapted("r = 64\ntarget_modules = [\"gate_proj\"]\n" + toml, test::tiny_model(config), dtype);
    const std::string prefix = "model.layers.0.mlp.gate_proj.";
    return std::pair(a.parameter(prefix + "lora_A.weight"), a.parameter(prefix + "lora_B.weight"));
  };
  const auto std_of = [](const Tensor& t) { return t.std().item<double>(); };
  const auto [A, B] = values("");
  CHECK(A.abs().max().item<double>() <= 0.1);  // kaiming_uniform(√5): 1/√in
  CHECK(std_of(A) == Approx(0.1 / std::sqrt(3.)).epsilon(0.03));
  CHECK(B.abs().max().item<double>() == 0);
  const auto [gaussian_A, gaussian_B] = values("init_lora_weights = \"gaussian\"");
  CHECK(std_of(gaussian_A) == Approx(1. / 64).epsilon(0.03));
  CHECK(gaussian_A.abs().max().item<double>() > 3. / 64);
  CHECK(gaussian_B.abs().max().item<double>() == 0);
  const auto [random_A, random_B] = values("init_lora_weights = false");
  CHECK(std_of(random_A) == Approx(0.1 / std::sqrt(3.)).epsilon(0.03));
  CHECK(std_of(random_B) == Approx(0.125 / std::sqrt(3.)).epsilon(0.05));
  const auto bias_of = [](const std::string& toml) {
    const Adapted a = adapted("lora_bias = true\n" + toml);
    return a.parameter(q0 + "lora_B.bias").abs().max().item<double>();
  };
  CHECK(bias_of("") == 0);
  CHECK(bias_of("init_lora_weights = false") > 0);
  for (const torch::Dtype dtype : {torch::kDouble, torch::kBFloat16}) {
    const auto other = values("init_lora_weights = false", dtype);
    CHECK(other.first.dtype() == dtype);
    CHECK(torch::equal(other.first, random_A.to(dtype)));
    CHECK(torch::equal(other.second, random_B.to(dtype)));
  }
}

TEST_CASE("merged weights match forward") {
  const std::string toml =
      GENERATE("target_modules = \"all-linear\"", "target_modules = \"all-linear\"\nlora_bias = true",
               "target_modules = [\"embed_tokens\", \"lm_head\", \"q_proj\"]\nuse_rslora = true");
  const Adapted a = adapted(toml);
  randomize_weights(*a.model);
  const Tensor expected = a.logits();
  const auto merged = test::tiny_model(test::tiny_config(2, true));
  for (std::size_t i = 0; i < merged->sites().size(); ++i) {
    const Site& from = *a.model->sites()[i];
    if (from.layers().empty()) continue;
    WeightAndBias weights{from.dense().clone(), from.base_bias().defined() ? from.base_bias().clone() : Tensor()};
    CHECK(from.layers().front()->merge_into(weights));
    CHECK_FALSE(torch::equal(weights.weight, from.dense()));
    // A place for the bias, where the model has none.
    auto* linear = dynamic_cast<Linear*>(merged->sites()[i]);
    if (linear != nullptr && weights.bias.defined() && !linear->base_bias().defined())
      linear->make_trainable("bias", torch::kFloat).set_data(weights.bias);
    const Tensor x = torch::randn({3, 16});
    if (linear != nullptr && linear->in_features() == 16)
      CHECK(close(dynamic_cast<const Linear&>(from).forward(x), torch::linear(x, weights.weight, weights.bias)));
    if (const auto* embedding = dynamic_cast<const Embedding*>(&from))
      CHECK(close(embedding->forward(a.input.ids), weights.weight.index_select(0, a.input.ids)));
    merged->sites()[i]->dense().copy_(weights.weight);
    if (merged->sites()[i]->base_bias().defined()) merged->sites()[i]->base_bias().copy_(weights.bias);
  }
  CHECK(close(merged->logits(merged->hidden_states(a.input)), expected));
}

TEST_CASE("dropout applies to the update's input, only in training, and never to an embedding") {
  const Adapted a = adapted("lora_dropout = 0.5\ntarget_modules = [\"q_proj\", \"embed_tokens\"]");
  randomize_weights(*a.model);
  const auto* site = dynamic_cast<Linear*>(a.model->find("model.layers.0.self_attn.q_proj"));
  const auto* embedding = dynamic_cast<Embedding*>(a.model->find("model.embed_tokens"));
  const Tensor x = torch::randn({4, 16});
  const Tensor A = a.parameter(q0 + "lora_A.weight"), B = a.parameter(q0 + "lora_B.weight");
  const Tensor base = torch::linear(x, site->dense(), site->base_bias());
  a.model->eval();
  CHECK(site->layers().front()->as_lora().has_value());
  const Tensor evaluated = site->forward(x), rows = embedding->forward(a.input.ids);
  CHECK(close(evaluated, base + x.mm(A.t()).mm(B.t())));
  a.model->train();
  CHECK_FALSE(site->layers().front()->as_lora().has_value());
  CHECK(torch::equal(embedding->forward(a.input.ids), rows));
  CHECK_FALSE(torch::equal(site->forward(x), site->forward(x)));
  torch::manual_seed(3);
  const Tensor dropped = site->forward(x);
  torch::manual_seed(3);
  CHECK(close(dropped, base + torch::dropout(x, 0.5, true).mm(A.t()).mm(B.t())));
  Tensor sum = torch::zeros_like(base);
  for (int i = 0; i < 4000; ++i) sum += site->forward(x).detach();
  CHECK((sum / 4000 - evaluated).abs().max().item<double>() < 0.1);  // the mean is the update without dropout
}

TEST_CASE("a residual initialization is not affected by dropout, also with DoRA, and files restore it") {
  for (const std::string dora : {"false", "true"}) {
    const std::string options = "init_lora_weights = \"pissa\"\nr = 4\nlora_alpha = 6\nlora_dropout = 0.5\n";
    const auto wide = [&] {
      return adapted(options + "use_dora = " + dora, test::tiny_model(test::tiny_config(2, true), torch::kDouble),
                     torch::kDouble);
    };
    const Adapted a = wide();
    randomize_weights(*a.model);
    const torch::NoGradGuard no_grad;
    const auto* site = dynamic_cast<Linear*>(a.model->find("model.layers.0.self_attn.q_proj"));
    const StateDict saved = a.adapter->hf_format().to_hf(*a.model);
    const Tensor A = saved.at("base_model.model." + q0 + "lora_A.weight"),
                 B = saved.at("base_model.model." + q0 + "lora_B.weight");
    REQUIRE(A.sizes() == at::IntArrayRef({8, 16}));
    CHECK(torch::equal(A.narrow(0, 0, 4), a.parameter(q0 + "lora_A.weight")));
    const Tensor update = 1.5 * B.narrow(1, 0, 4).mm(A.narrow(0, 0, 4));
    const Tensor rest = site->dense() + 1.5 * B.narrow(1, 4, 4).mm(A.narrow(0, 4, 4));
    const auto longest = [](const Tensor& matrix) { return at::linalg_svdvals(matrix)[0].item<double>(); };
    CHECK(longest(rest) < 0.9 * longest(site->dense()));

    a.model->train();
    const Tensor x = torch::randn({5, 16}, torch::kDouble);
    torch::manual_seed(3);
    const Tensor y = site->forward(x);
    torch::manual_seed(3);
    const Tensor kept = torch::dropout(x, 0.5, true), plain = torch::linear(x, rest, site->base_bias());
    Tensor expected = plain + kept.mm(update.t());
    if (dora == "true") {
      const Tensor stretch = a.parameter(q0 + "lora_magnitude_vector") / (rest + update).norm(2, 1);
      expected = plain + (stretch - 1) * kept.mm(rest.t()) + stretch * kept.mm(update.t());
    }
    CHECK(close(y, expected, 1e-12));

    const Adapted again = wide();
    StateDict file;
    for (const auto& [key, tensor] : saved) file.emplace(key, tensor.clone());
    again.adapter->hf_format().from_hf(*again.model, file);
    again.model->eval(), a.model->eval();
    CHECK(torch::equal(again.logits(), a.logits()));
    CHECK(torch::equal(again.parameter(q0 + "lora_B.weight"), a.parameter(q0 + "lora_B.weight")));
  }
}

TEST_CASE("an embedding's update is scale · (rows of Aᵀ)·Bᵀ") {
  const Adapted a = adapted("r = 4\ntarget_modules = [\"embed_tokens\"]");
  const std::string prefix = "model.embed_tokens.";
  const Tensor A = a.parameter(prefix + "lora_embedding_A"), B = a.parameter(prefix + "lora_embedding_B");
  CHECK(A.sizes() == at::IntArrayRef({4, 40}));
  CHECK(B.sizes() == at::IntArrayRef({16, 4}));
  CHECK(A.abs().max().item<double>() == 0);
  CHECK(B.std().item<double>() == Approx(1).epsilon(0.3));
  randomize_weights(*a.model);
  const auto& site = a.model->embedding();
  const Tensor expected = site.dense() + 2 * B.mm(A).t();
  CHECK(close(site.forward(a.input.ids), expected.index_select(0, a.input.ids)));
  site.forward(a.input.ids).sum().backward();
  CHECK(A.grad().abs().sum().item<double>() > 0);
  CHECK(B.grad().abs().sum().item<double>() > 0);
}

TEST_CASE("fp32 parameters work with a bf16 model") {
  const auto model = test::tiny_model(test::tiny_config(), torch::kBFloat16);
  const Adapted a = adapted("target_modules = [\"q_proj\", \"embed_tokens\"]\nlora_dropout = 0.1", model);
  CHECK(a.logits().dtype() == torch::kBFloat16);
  at::cross_entropy_loss(a.logits().to(torch::kFloat), a.input.ids).backward();
  for (const auto& [name, parameter] : model->trainable()) {
    CHECK(parameter.dtype() == torch::kFloat);
    CHECK(parameter.grad().dtype() == torch::kFloat);
  }
}

TEST_CASE("no bias, all biases or those of target modules train") {
  const auto trained = [](const std::string& toml) {
    StringList names;
    const Adapted a = adapted("target_modules = [\"q_proj\"]\n" + toml);
    for (const auto& [name, tensor] : a.model->trainable())
      if (name.ends_with(".bias")) names.push_back(name);
    return names;
  };
  CHECK(trained("").empty());
  CHECK(trained("bias = \"lora_only\"") == StringList{q0 + "bias", "model.layers.1.self_attn.q_proj.bias"});
  CHECK(trained("bias = \"all\"").size() == 8);
  // A model without biases gains none.
  CHECK(adapted("bias = \"all\"", test::tiny_model(test::tiny_config())).model->trainable().size() == 8);
}

TEST_CASE("saved names are HF PEFT's") {
  const std::string root = "base_model.model.";
  const auto saved = [&](const std::string& toml, bool biases = false) {
    const Adapted a = adapted(toml, test::tiny_model(test::tiny_config(1, biases)));
    StateDict state = a.adapter->hf_format().to_hf(*a.model);
    state.merge(a.adapter->hf_format().base_tensors(*a.model));
    return keys(state);
  };
  const auto q = [&](const std::string& name) { return root + q0 + name; };
  const std::string attention = root + "model.layers.0.self_attn.", embed = root + "model.embed_tokens.";
  const std::string only_q = "target_modules = [\"q_proj\"]\n";
  std::set<std::string> expected = {q("lora_A.weight"), q("lora_B.weight")};
  CHECK(saved(only_q) == expected);
  CHECK(saved(only_q + "bias = \"lora_only\"") == expected);
  CHECK(saved(only_q + "bias = \"all\"", true) ==
        std::set<std::string>{q("lora_A.weight"), q("lora_B.weight"), q("base_layer.bias"), attention + "k_proj.bias",
                              attention + "v_proj.bias", attention + "o_proj.bias"});
  CHECK(saved(only_q + "lora_bias = true") ==
        std::set<std::string>{q("lora_A.weight"), q("lora_B.weight"), q("lora_B.bias")});
  CHECK(saved(only_q + "modules_to_save = [\"lm_head\", \"embed_tokens\"]") ==
        std::set<std::string>{q("lora_A.weight"), q("lora_B.weight"), root + "lm_head.weight", embed + "weight"});
  const std::set<std::string> embedded = {embed + "lora_embedding_A", embed + "lora_embedding_B",
                                          embed + "base_layer.weight"};
  CHECK(saved("target_modules = [\"embed_tokens\"]") == embedded);
  CHECK(saved("target_modules = \".*embed_tokens\"") == embedded);
  CHECK(saved("target_modules = [\"model.embed_tokens\"]") ==
        std::set<std::string>{embed + "lora_embedding_A", embed + "lora_embedding_B"});
}

TEST_CASE("saved tensors of the frozen base are separate from the adapter's") {
  const Adapted a = adapted("target_modules = [\"embed_tokens\", \"lm_head\"]");
  const StateDict state = a.adapter->hf_format().to_hf(*a.model), base = a.adapter->hf_format().base_tensors(*a.model);
  for (const Site* site : std::initializer_list<const Site*>{&a.model->embedding(), &a.model->lm_head()}) {
    const std::string key = "base_model.model." + site->path() + ".base_layer.weight";
    CHECK(torch::equal(base.at(key), site->dense()));
    CHECK(!state.contains(key));
  }
  // Everything else is the parameter itself.
  CHECK(state.at("base_model.model.lm_head.lora_A.weight").data_ptr() ==
        a.parameter("lm_head.lora_A.weight").data_ptr());
}

TEST_CASE("the saved config reads back as the same options") {
  const Adapted a = adapted(
      "target_modules = [\"v_proj\", \"q_proj\"]\nr = 4\nlora_alpha = 1.5\nrank_pattern = { q_proj = 2 }\n"
      "alpha_pattern = { q_proj = 3 }\nlora_dropout = 0.25\nuse_rslora = true\nbias = \"all\"\n"
      "layers_to_transform = [1]\nmodules_to_save = [\"lm_head\"]\ninit_lora_weights = \"gaussian\"");
  const auto config = a.adapter->hf_format().config(*a.model);
  CHECK(config["target_modules"] == StringList{"q_proj", "v_proj"});
  CHECK(config["lora_alpha"] == 1.5);
  CHECK(config["alpha_pattern"].dump() == "{\"q_proj\":3}");
  CHECK(config["rank_pattern"].dump() == "{\"q_proj\":2}");
  CHECK(config["init_lora_weights"] == "gaussian");
  CHECK(config["peft_type"] == "LORA");
  const auto plain = adapted("").adapter->hf_format().config(*adapted("").model);
  CHECK(plain["lora_alpha"].dump() == "8");
  CHECK(plain["init_lora_weights"] == true);
  CHECK(plain["layers_to_transform"].is_null());
  CHECK(plain.size() == 41);
  auto document = Document::from_adapter_config("adapter", nlohmann::json::parse(config.dump()), "adapter_config.json");
  const auto again = test::load<Adapter>("lora", document);
  const auto model = test::tiny_model(test::tiny_config(2, true));
  again->attach(*model, torch::kFloat);
  CHECK(again->hf_format().config(*model) == config);
  CHECK(keys(again->hf_format().to_hf(*model)) == keys(a.adapter->hf_format().to_hf(*a.model)));
}

TEST_CASE("invalid options are reported") {
  const auto wrong = [](const std::string& toml) { return error_of(toml, test::tiny_model(test::tiny_config())); };
  const auto has = [](const std::string& text, const std::string& part) { return text.find(part) != text.npos; };
  CHECK(has(wrong("r = 0"), "'r' must be positive"));
  CHECK(has(wrong("lora_dropout = 1.0"), "'lora_dropout' must be at least 0 and below 1"));
  CHECK(has(wrong("lora_alpha = inf"), "'lora_alpha'"));
  CHECK(has(wrong("bias = \"some\""), "'bias' must be \"none\", \"all\" or \"lora_only\""));
  CHECK(has(wrong("init_lora_weights = \"pisa\""), "must be true, false, \"gaussian\", \"orthogonal\""));
  CHECK(has(wrong("init_lora_weights = \"gaussian\"\nlora_bias = true"), "'lora_bias' needs"));
  CHECK(has(wrong("rank_pattern = { q_proj = 0 }"), "must contain positive ranks only"));
  CHECK(has(wrong("rank_pattern = { k_proj = 4 }"), "rank_pattern: 'k_proj' matches nothing"));
  CHECK(has(wrong("rr = 1"), "did you mean 'r'?"));
  CHECK(has(wrong("lora_bias = true\ntarget_modules = [\"embed_tokens\"]"), "is an embedding"));
}
