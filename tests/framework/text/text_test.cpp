// Promises how a checkpoint's files become Text: which template of several, and which ids end a text.
#include "peft/text/text.h"

#include "framework/text/tokenizer/small_tokenizer.h"
#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "support/test.h"

namespace {

using nlohmann::json;
using Ids = std::vector<int64_t>;

class FakeCheckpoint : public peft::PretrainedModel {
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

TEST_CASE("a checkpoint that says nothing has a tokenizer and no more") {
  const peft::TextPipeline text = peft::load_text(FakeCheckpoint());
  CHECK(text.tokenizer->encode("abc", true) == Ids{5});
  CHECK(text.chat_template == nullptr);
  CHECK(text.eos_ids.empty());
}

TEST_CASE("end tokens: the tokenizer's own, then generation_config's or else config's") {
  FakeCheckpoint checkpoint;
  checkpoint.config_["eos_token_id"] = 3;
  CHECK(peft::load_text(checkpoint).eos_ids == Ids{3});
  checkpoint.generation_config_["eos_token_id"] = {2, 1, 2};
  CHECK(peft::load_text(checkpoint).eos_ids == Ids{2, 1});
  checkpoint.tokenizer_config_["eos_token"] = {{"content", "<s>"}};
  CHECK(peft::load_text(checkpoint).eos_ids == Ids{8, 2, 1});
  checkpoint.generation_config_["eos_token_id"] = 8;  // config's 3 does not count, though nothing new is said here
  CHECK(peft::load_text(checkpoint).eos_ids == Ids{8});
  checkpoint.tokenizer_config_["eos_token"] = "nowhere";
  CHECK_THROWS_WITH(peft::load_text(checkpoint), Catch::Contains("eos_token 'nowhere' is not in the vocabulary"));
  checkpoint.tokenizer_config_["eos_token"] = "<s>";
  checkpoint.generation_config_["eos_token_id"] = "x";
  CHECK_THROWS_WITH(peft::load_text(checkpoint), Catch::Contains("generation_config.json: 'eos_token_id' must be"));
}

TEST_CASE("of several templates the one called default is taken") {
  FakeCheckpoint checkpoint;
  checkpoint.tokenizer_config_ = {{"bos_token", "<s>"}, {"chat_template", "{{ bos_token }}one"}};
  CHECK(peft::load_text(checkpoint).chat_template->render({}, false) == "<s>one");
  checkpoint.tokenizer_config_["chat_template"] =
      json::parse(R"([{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}])");
  CHECK(peft::load_text(checkpoint).chat_template->render({}, false) == "yes");
  checkpoint.tokenizer_config_["chat_template"].erase(1);
  CHECK_THROWS_WITH(peft::load_text(checkpoint), Catch::Contains("one named \"default\""));
}
