// Shows how a text pipeline is made from a model's files: which of several chat templates is used, and which EOS
// tokens.
#include "peft/text/text.h"

#include "framework/text/tokenizer/small_tokenizer.h"
#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "support/test.h"

namespace {

using nlohmann::json;
using Ids = std::vector<int64_t>;

class FakeModel : public peft::PretrainedModel {
 public:
  json config_ = json::object(), tokenizer_config_ = json::object(), generation_config_ = json::object();

  const std::string& path() const override { return path_; }
  const json& config() const override { return config_; }
  std::string tokenizer_json() const override { return small_tokenizer().dump(); }
  std::string tokenizer_bytes() const override { return tokenizer_json(); }
  const json& tokenizer_config() const override { return tokenizer_config_; }
  const json& generation_config() const override { return generation_config_; }
  const std::vector<peft::StoredTensor>& tensors() const override { return tensors_; }
  void read(const peft::StoredTensor&, float*) const override {}
  bool is_direct(const peft::StoredTensor&) const override { return false; }

 private:
  std::string path_ = "models/small";
  std::vector<peft::StoredTensor> tensors_;
};

}  // namespace

TEST_CASE("a model without further files has only a tokenizer") {
  const peft::TextPipeline text = peft::load_text(FakeModel());
  CHECK(text.tokenizer->encode("abc", true) == Ids{5});
  CHECK(text.chat_template == nullptr);
  CHECK(text.eos_ids.empty());
}

TEST_CASE("EOS tokens come from the tokenizer, then from generation_config or, if it has none, from config") {
  FakeModel model;
  model.config_["eos_token_id"] = 3;
  CHECK(peft::load_text(model).eos_ids == Ids{3});
  model.generation_config_["eos_token_id"] = {2, 1, 2};
  CHECK(peft::load_text(model).eos_ids == Ids{2, 1});
  model.tokenizer_config_["eos_token"] = {{"content", "<s>"}};
  CHECK(peft::load_text(model).eos_ids == Ids{8, 2, 1});
  model.generation_config_["eos_token_id"] = 8;  // replaces config's 3, although it adds no id
  CHECK(peft::load_text(model).eos_ids == Ids{8});
  model.tokenizer_config_["eos_token"] = "nowhere";
  CHECK_THROWS_WITH(peft::load_text(model), Catch::Contains("eos_token 'nowhere' is not in the vocabulary"));
  model.tokenizer_config_["eos_token"] = "<s>";
  model.generation_config_["eos_token_id"] = "x";
  CHECK_THROWS_WITH(peft::load_text(model), Catch::Contains("generation_config.json: 'eos_token_id' must be"));
}

TEST_CASE("of several templates the one named default is used") {
  FakeModel model;
  model.tokenizer_config_ = {{"bos_token", "<s>"}, {"chat_template", "{{ bos_token }}one"}};
  CHECK(peft::load_text(model).chat_template->render({}, false) == "<s>one");
  model.tokenizer_config_ = {{"pad_token", {{"content", "<p>"}}}, {"x_token", "x"}, {"add_bos_token", true}};
  model.tokenizer_config_["chat_template"] = "{{ pad_token }}{{ x_token }}{{ bos_token is defined }}";
  CHECK(peft::load_text(model).chat_template->render({}, false) == "<p>xFalse");
  model.tokenizer_config_["chat_template"] =
      json::parse(R"([{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}])");
  CHECK(peft::load_text(model).chat_template->render({}, false) == "yes");
  model.tokenizer_config_["chat_template"].erase(1);
  CHECK_THROWS_WITH(peft::load_text(model),
                    Catch::Contains("no chat template is named 'default'") && Catch::Contains("'rag'"));
  CHECK(peft::find_chat_template(model, "rag") == "no");
  CHECK_THROWS_WITH(peft::find_chat_template(model, "other"), Catch::Contains("neither a .jinja file nor a template"));
}
