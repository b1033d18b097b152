#include "pretrained/hf_folder.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/pretrained_model.h"
#include "peft/files/safetensors.h"
#include "pretrained/shard_index.h"
#include "text/unicode.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMaxTokenizer = std::size_t{256} << 20, kMaxTemplate = std::size_t{1} << 20;  // bytes

/// What is there but cannot be read, a link to itself too: reading it says why.
bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found;
}

/// An empty object where the file is absent.
json object_of(const fs::path& file) {
  if (!is_there(file)) return json::object();
  json value = read_json(file.string());
  if (!value.is_object()) throw InputError(printable(file.string(), 4096) + ": must be an object");
  return value;
}

class HfFolder final : public PretrainedModel {
 public:
  explicit HfFolder(const std::string& path) : path_(path), folder_(path), name_(printable(path, 4096)) {
    if (!is_there(folder_ / "config.json")) throw InputError(name_ + ": has no config.json");
    config_ = object("config.json");
    generation_config_ = object("generation_config.json");
    tokenizer_config_ = read_tokenizer_config(path);
    read_weights();
  }
  const std::string& path() const override { return path_; }
  const json& config() const override { return config_; }
  const json& tokenizer_config() const override { return tokenizer_config_; }
  const json& generation_config() const override { return generation_config_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  void read(const StoredTensor& tensor, float* out) const override { to_float(tensor, out); }
  bool is_direct(const StoredTensor& tensor) const override { return tensor.type <= StoredType::bf16; }
  std::string tokenizer_json() const override {
    if (!is_there(folder_ / "tokenizer.json"))
      throw InputError(name_ + ": has no tokenizer.json; transformers' AutoTokenizer.save_pretrained writes one");
    return read_text((folder_ / "tokenizer.json").string(), kMaxTokenizer);
  }
  std::string tokenizer_bytes() const override { return tokenizer_json(); }

 private:
  json object(const char* file) const { return object_of(folder_ / file); }
  void read_weights();
  void read_index();
  void add(const std::shared_ptr<const SafetensorsFile>& file);

  std::string path_;
  fs::path folder_;
  std::string name_;
  json config_, tokenizer_config_, generation_config_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<StoredTensor> tensors_;
};

void HfFolder::add(const std::shared_ptr<const SafetensorsFile>& file) {
  files_.push_back(file);
  tensors_.insert(tensors_.end(), file->tensors().begin(), file->tensors().end());
}

void HfFolder::read_weights() {
  if (is_there(folder_ / "model.safetensors"))
    return add(SafetensorsFile::open((folder_ / "model.safetensors").string()));
  if (is_there(folder_ / "model.safetensors.index.json")) return read_index();
  const bool pickled = is_there(folder_ / "pytorch_model.bin") || is_there(folder_ / "pytorch_model.bin.index.json");
  throw InputError(name_ + (pickled ? ": holds its weights as Python pickles, which may run code and are not read; "
                                      "convert them to safetensors (transformers' save_pretrained does)"
                                    : ": has neither model.safetensors nor model.safetensors.index.json"));
}

void HfFolder::read_index() {
  const std::string path = (folder_ / "model.safetensors.index.json").string(), name = printable(path, 4096);
  auto shards = read_shard_index(read_json(path), name);
  for (auto& [shard, expected] : shards) {
    const auto file = SafetensorsFile::open((folder_ / shard).string());
    for (const StoredTensor& tensor : file->tensors())
      if (expected.erase(tensor.name) == 0)
        throw InputError(name + ": tensor '" + printable(tensor.name) + "' is in " + printable(shard) +
                         ", but the weight_map does not say so");
    if (!expected.empty())
      throw InputError(name + ": tensor '" + printable(*expected.begin()) + "' is not in " + printable(shard));
    add(file);
  }
}

}  // namespace

json read_tokenizer_config(const std::string& folder) {
  json config = object_of(fs::path(folder) / "tokenizer_config.json");
  // transformers 5 writes the template beside it; the file wins, as there.
  if (const fs::path file = fs::path(folder) / "chat_template.jinja"; is_there(file)) {
    std::string source = read_text(file.string(), kMaxTemplate);
    if (text::find_bad_utf8(source) != source.npos) throw InputError(printable(file.string(), 4096) + ": is not UTF-8");
    config["chat_template"] = std::move(source);
  }
  for (const char* key : {"bos_token", "eos_token"}) {
    const auto it = config.find(key);
    if (it != config.end() && it->is_object() && it->contains("content")) *it = json((*it)["content"]);
  }
  return config;
}

std::shared_ptr<const PretrainedModel> open_hf_folder(const std::string& path) {
  return std::make_shared<HfFolder>(path);
}

}  // namespace peft
