// Shows for a model with a vocabulary overlay: added tokens are found in texts, with the ids that HF tokenizers would
// assign; the stored rows of the embedding and lm_head are unchanged, and added rows are their mean or the given
// values; nothing else changes, including the fingerprint; invalid overlays are refused.
#include "peft/pretrained/vocabulary_overlay.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "framework/text/tokenizer/small_tokenizer.h"
#include "peft/base/error.h"
#include "peft/files/safetensors.h"
#include "peft/text/text.h"
#include "support/test.h"

using namespace peft;
using nlohmann::json;
using Ids = std::vector<int64_t>;
using Floats = std::vector<float>;

namespace {

/// A model with nine tokens, hidden size 2 and one other tensor.
class Nine final : public PretrainedModel {
 public:
  Nine() {
    for (std::size_t i = 0; i < numbers_.size(); ++i) numbers_[i] = static_cast<float>(i);
    const auto* data = reinterpret_cast<const std::byte*>(numbers_.data());
    for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"})
      tensors_.push_back({name, StoredType::f32, {9, 2}, data, 72});
    tensors_.push_back({"model.norm.weight", StoredType::f32, {2}, data, 8});
  }
  const std::string& path() const override { return path_; }
  const json& config() const override { return config_; }
  std::string tokenizer_json() const override { return small_tokenizer().dump(); }
  std::string tokenizer_bytes() const override { return tokenizer_json(); }
  const json& tokenizer_config() const override { return tokenizer_config_; }
  const json& generation_config() const override { return none_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  void read(const StoredTensor& tensor, float* out) const override { to_float(tensor, out); }
  bool is_direct(const StoredTensor&) const override { return true; }

 private:
  std::string path_ = "models/nine";
  json config_ = {{"vocab_size", 9}}, tokenizer_config_ = {{"eos_token", "<s>"}}, none_ = json::object();
  std::vector<float> numbers_ = std::vector<float>(18);
  std::vector<StoredTensor> tensors_;
};

const std::vector<AddedToken> two = {{.content = "<t>"}, {.content = "</t>", .special = true, .normalized = false}};

std::shared_ptr<const PretrainedModel> overlaid(VocabularyOverlay overlay) {
  return with_vocabulary(std::make_shared<Nine>(), std::move(overlay));
}

Floats read(const PretrainedModel& model, const std::string& name) {
  const StoredTensor& tensor = *model.find(name);
  int64_t elements = 1;
  for (const int64_t size : tensor.shape) elements *= size;
  Floats values(static_cast<std::size_t>(elements));
  model.read(tensor, values.data());
  return values;
}

Floats counted(std::size_t count, Floats more = {}) {
  Floats values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  values.insert(values.end(), more.begin(), more.end());
  return values;
}

}  // namespace

TEST_CASE("added tokens get the next ids") {
  const auto model = overlaid({.tokens = two});
  const TextPipeline text = load_text(*model);
  CHECK(text.tokenizer->encode("a<t>abc</t>", false) == Ids{1, 9, 5, 10});
  CHECK(text.tokenizer->decode({9, 1, 10}, true) == "<t>a");
  CHECK(text.tokenizer->size() == 11);
  CHECK(text.eos_ids == Ids{8});
  CHECK(model->added()->tokens == two);
  CHECK(model->added()->first_id == 9);
  CHECK(LazyText(model).fingerprint() != LazyText(std::make_shared<Nine>()).fingerprint());
}

TEST_CASE("added rows are the mean of the stored rows, or the given values") {
  const auto mean = overlaid({.tokens = two});
  CHECK(mean->config().at("vocab_size") == 11);
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    CHECK(mean->find(name)->shape == Ids{11, 2});
    CHECK(read(*mean, name) == counted(18, {8, 9, 8, 9}));
    CHECK_FALSE(mean->is_direct(*mean->find(name)));
  }
  CHECK(read(*mean, "model.norm.weight") == Floats{0, 1});
  CHECK(mean->is_direct(*mean->find("model.norm.weight")));
  CHECK(mean->fingerprint() == Nine().fingerprint());

  const auto given = overlaid({.tokens = two, .rows = 12, .values = {{"lm_head.weight", {1, 2, 3, 4, 5, 6}}}});
  CHECK(read(*given, "lm_head.weight") == counted(18, {1, 2, 3, 4, 5, 6}));
  CHECK(read(*given, "model.embed_tokens.weight") == counted(18, {8, 9, 8, 9, 8, 9}));
}

TEST_CASE("there can be fewer rows, and an overlay without changes returns the model itself") {
  const auto fewer = overlaid({.rows = 4});
  CHECK(fewer->config().at("vocab_size") == 4);
  CHECK(read(*fewer, "model.embed_tokens.weight") == counted(8));
  CHECK(fewer->tokenizer_json() == Nine().tokenizer_json());
  const auto nine = std::make_shared<Nine>();
  CHECK(with_vocabulary(nine, {}) == nine);
  CHECK(with_vocabulary(nine, {.rows = 9}) == nine);
}

TEST_CASE("tokens and rows that cannot be added are refused") {
  for (const char* known : {"<s>", "ab", "<t>"})
    CHECK_THROWS_AS(overlaid({.tokens = {{.content = "<t>"}, {.content = known}}}), ConfigError);
  CHECK_THROWS_AS(overlaid({.tokens = {{.content = ""}}}), ConfigError);
  CHECK_THROWS_WITH(overlaid({.tokens = two, .rows = 10}), Catch::Contains("too small for the added tokens"));
  CHECK_THROWS_AS(overlaid({.rows = 10, .values = {{"lm_head.weight", {1}}}}), InputError);
}

TEST_CASE("the tokens that a tokenizer.json adds to the base's are recovered") {
  const Nine nine;
  const auto model = overlaid({.tokens = two});
  CHECK(extra_tokens(nine, model->tokenizer_json(), "t") == two);
  CHECK(extra_tokens(nine, nine.tokenizer_json(), "t").empty());
  CHECK(extra_tokens(nine, nine.tokenizer_json() + " ", "t").empty());
  json other = json::parse(model->tokenizer_json());
  other["added_tokens"].erase(2);
  CHECK_THROWS_WITH(extra_tokens(nine, other.dump(), "there"),
                    Catch::Contains("there: the token '</t>' has the id 10"));
}

TEST_CASE("the written files contain the same tokenizer") {
  const std::string folder = (std::filesystem::temp_directory_path() / "peft_vocabulary_test").string();
  std::filesystem::create_directories(folder);
  const auto model = overlaid({.tokens = two});
  write_tokenizer(*model, folder);
  std::ostringstream text;
  text << std::ifstream(folder + "/tokenizer.json").rdbuf();
  CHECK(text.str() == model->tokenizer_json());
  CHECK(std::filesystem::exists(folder + "/tokenizer_config.json"));
  std::filesystem::remove_all(folder);
}

TEST_CASE("a chosen chat template is used, and written as chat_template.jinja") {
  const std::string folder = (std::filesystem::temp_directory_path() / "peft_template_test").string();
  std::filesystem::create_directories(folder);
  const std::string source = folder + "/own.jinja";
  std::ofstream(source) << "{{ eos_token }}!";
  const auto model = overlaid({.tokenizer_config = {{"chat_template", find_chat_template(Nine(), source)}}});
  CHECK(load_text(*model).chat_template->render({}, false) == "<s>!");
  write_tokenizer(*model, folder);
  std::ostringstream text;
  text << std::ifstream(folder + "/chat_template.jinja").rdbuf();
  CHECK(text.str() == "{{ eos_token }}!");
  CHECK_FALSE(json::parse(std::ifstream(folder + "/tokenizer_config.json")).contains("chat_template"));
  std::ofstream(source) << "{% for";
  CHECK_THROWS_WITH(find_chat_template(Nine(), source), Catch::Contains("own.jinja: chat template: "));
  CHECK_THROWS_AS(find_chat_template(Nine(), folder + "/none.jinja"), InputError);
  CHECK_THROWS_AS(find_chat_template(Nine(), "none"), ConfigError);
  std::filesystem::remove_all(folder);
}
