#include "files/hf_folder.h"

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "peft/error.h"
#include "peft/files/checkpoint.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class HfFolder final : public Checkpoint {
 public:
  explicit HfFolder(const std::string& path) : path_(path), folder_(path), name_(printable(path, 4096)) {
    if (!fs::exists(folder_ / "config.json")) throw InputError(name_ + ": has no config.json");
    config_ = object("config.json");
    generation_config_ = object("generation_config.json");
    read_tokenizer_config();
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
    if (!fs::exists(folder_ / "tokenizer.json"))
      throw InputError(name_ + ": has no tokenizer.json; transformers' AutoTokenizer.save_pretrained writes one");
    return read_text((folder_ / "tokenizer.json").string());
  }
  std::string tokenizer_bytes() const override { return tokenizer_json(); }

 private:
  json object(const char* file) const;
  void read_tokenizer_config();
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

/// An empty object where the file is absent.
json HfFolder::object(const char* file) const {
  const std::string path = (folder_ / file).string();
  if (!fs::exists(path)) return json::object();
  json value = read_json(path);
  if (!value.is_object()) throw InputError(printable(path, 4096) + ": must be an object");
  return value;
}

void HfFolder::read_tokenizer_config() {
  tokenizer_config_ = object("tokenizer_config.json");
  // transformers 5 writes the template beside it; the file wins, as there.
  if (const fs::path file = folder_ / "chat_template.jinja"; fs::exists(file))
    tokenizer_config_["chat_template"] = read_text(file.string(), std::size_t{1} << 20);
  for (const char* key : {"bos_token", "eos_token"}) {
    const auto it = tokenizer_config_.find(key);
    if (it != tokenizer_config_.end() && it->is_object() && it->contains("content")) *it = json((*it)["content"]);
  }
}

void HfFolder::add(const std::shared_ptr<const SafetensorsFile>& file) {
  files_.push_back(file);
  tensors_.insert(tensors_.end(), file->tensors().begin(), file->tensors().end());
}

void HfFolder::read_weights() {
  if (fs::exists(folder_ / "model.safetensors"))
    return add(SafetensorsFile::open((folder_ / "model.safetensors").string()));
  if (fs::exists(folder_ / "model.safetensors.index.json")) return read_index();
  const bool pickled =
      fs::exists(folder_ / "pytorch_model.bin") || fs::exists(folder_ / "pytorch_model.bin.index.json");
  throw InputError(name_ + (pickled ? ": holds its weights as Python pickles, which may run code and are not read; "
                                      "convert them to safetensors (transformers' save_pretrained does)"
                                    : ": has neither model.safetensors nor model.safetensors.index.json"));
}

void HfFolder::read_index() {
  const std::string path = (folder_ / "model.safetensors.index.json").string(), name = printable(path, 4096);
  const json index = object("model.safetensors.index.json");
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) throw InputError(name + ": has no weight_map");
  std::map<std::string, std::set<std::string>> shards;  // file → the tensors it must hold
  for (const auto& [tensor, file] : map->items()) {
    const std::string shard = file.is_string() ? file.get<std::string>() : "";
    if (!shard.ends_with(".safetensors") || shard.find_first_of("/\\\0", 0, 3) != std::string::npos ||
        shard.starts_with("."))
      throw InputError(name + ": weight_map: '" + printable(tensor) + "' names '" + printable(shard) +
                       "'; only a *.safetensors file beside the index is allowed");
    shards[shard].insert(tensor);
  }
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

std::shared_ptr<const Checkpoint> open_hf_folder(const std::string& path) { return std::make_shared<HfFolder>(path); }

}  // namespace peft
