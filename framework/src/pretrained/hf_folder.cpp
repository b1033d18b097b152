#include "pretrained/hf_folder.h"

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "files/folder_contents.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/pretrained_model.h"
#include "peft/files/safetensors.h"
#include "peft/pretrained/open.h"
#include "pretrained/shard_index.h"
#include "pretrained/tokenizer_files.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class HfFolder final : public PretrainedModel {
 public:
  HfFolder(const std::string& path, const OpenOptions& options)
      : path_(path),
        folder_(path),
        name_(printable_path(path)),
        base_name_(options.base_name.empty() ? path : options.base_name),
        ignores_unknown_(options.ignore_unknown) {
    config_ = object("config.json");
    generation_config_ = object("generation_config.json");
    tokenizer_config_ = read_tokenizer_config(path);
    read_weights();
    resolve_tie();
  }
  const std::string& path() const override { return path_; }
  const std::string& base_name() const override { return base_name_; }
  bool ignores_unknown() const override { return ignores_unknown_; }
  std::vector<std::string> notes() const override { return notes_; }
  const json& config() const override { return config_; }
  const json& tokenizer_config() const override { return tokenizer_config_; }
  const json& generation_config() const override { return generation_config_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  void read(const StoredTensor& tensor, float* out) const override { to_float(tensor, out); }
  bool is_direct(const StoredTensor& tensor) const override { return tensor.type <= StoredType::bf16; }
  std::string tokenizer_json() const override {
    require_tokenizer();
    return read_tokenizer_json(path_, tokenizer_config_);
  }
  std::string tokenizer_bytes() const override {
    require_tokenizer();
    return read_tokenizer_bytes(path_);
  }

 private:
  void require_tokenizer() const {
    if (!is_present(folder_ / "tokenizer.json"))
      throw InputError(name_ + ": has no tokenizer.json; write one with transformers' AutoTokenizer.save_pretrained");
  }
  json object(const char* file) const { return read_optional_object((folder_ / file).string()); }
  void read_weights();
  void read_index();
  void resolve_tie();
  void add(const std::shared_ptr<const SafetensorsFile>& file);

  std::string path_;
  fs::path folder_;
  std::string name_, base_name_;
  bool ignores_unknown_;
  std::vector<std::string> notes_;
  json config_, tokenizer_config_, generation_config_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<StoredTensor> tensors_;
};

void HfFolder::add(const std::shared_ptr<const SafetensorsFile>& file) {
  files_.push_back(file);
  tensors_.insert(tensors_.end(), file->tensors().begin(), file->tensors().end());
}

void HfFolder::read_weights() {
  if (is_present(folder_ / "model.safetensors"))
    return add(SafetensorsFile::open((folder_ / "model.safetensors").string()));
  if (is_present(folder_ / "model.safetensors.index.json")) return read_index();
  const bool pickled =
      is_present(folder_ / "pytorch_model.bin") || is_present(folder_ / "pytorch_model.bin.index.json");
  std::string found = file_with(folder_, ".safetensors");
  if (!found.empty()) found = "; it has " + printable_path(found) + ", so it may have been downloaded incompletely";
  throw InputError(name_ + (pickled ? ": the weights are Python pickles, which can run code and are not loaded; "
                                      "convert them to safetensors with transformers' save_pretrained"
                                    : ": has neither model.safetensors nor model.safetensors.index.json" + found));
}

void HfFolder::read_index() {
  const std::string path = (folder_ / "model.safetensors.index.json").string(), name = printable_path(path);
  auto shards = read_shard_index(read_json(path), name);
  for (auto& [shard, expected] : shards) {
    const auto file = SafetensorsFile::open((folder_ / shard).string());
    for (const StoredTensor& tensor : file->tensors())
      if (expected.erase(tensor.name) == 0)
        throw InputError(name + ": tensor '" + printable(tensor.name) + "' is in " + printable(shard) +
                         ", but the weight_map does not list it there");
    if (!expected.empty())
      throw InputError(name + ": tensor '" + printable(*expected.begin()) + "' is not in " + printable(shard));
    add(file);
  }
}

bool equal_values(const StoredTensor& a, const StoredTensor& b) {
  if (a.shape != b.shape) return false;
  if (a.type == b.type) return a.size == b.size && std::memcmp(a.data, b.data, a.size) == 0;
  if (a.type > StoredType::bf16 || b.type > StoredType::bf16) return false;
  std::vector<float> first(a.size / element_size(a.type)), second(first.size());
  to_float(a, first.data());
  to_float(b, second.data());
  return first == second;
}

/// As transformers' tie_weights: of a tied pair one tensor is enough, whichever it is; two that differ are not tied.
void HfFolder::resolve_tie() {
  if (config_.value("tie_word_embeddings", json()) != json(true)) return;
  const std::string embedding_name = "model.embed_tokens.weight", head_name = "lm_head.weight";
  const StoredTensor *embedding = find(embedding_name), *head = find(head_name);
  if (head == nullptr) return;
  if (embedding == nullptr) {
    for (StoredTensor& tensor : tensors_)
      if (tensor.name == head_name) tensor.name = embedding_name;
  } else if (!equal_values(*embedding, *head)) {
    config_["tie_word_embeddings"] = false;
    notes_.push_back(name_ +
                     ": the config ties lm_head to embed_tokens, but the files hold different weights for "
                     "them; both are used, untied, as transformers does");
  }
}

}  // namespace

std::shared_ptr<const PretrainedModel> open_hf_folder(const std::string& path, const OpenOptions& options) {
  return std::make_shared<HfFolder>(path, options);
}

}  // namespace peft
