#include "pretrained/gguf/gguf_model.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "peft/pretrained/gguf/vocabulary.h"
#include "peft/pretrained/open.h"
#include "pretrained/gguf/config.h"
#include "pretrained/gguf/file.h"
#include "pretrained/gguf/heads.h"
#include "pretrained/gguf/names.h"
#include "pretrained/gguf/rope.h"
#include "pretrained/gguf/types.h"

namespace peft {

namespace {

using nlohmann::json;

/// Elements per task, so that starting a task is cheap in comparison.
constexpr int64_t kElementsPerTask = 1 << 18;

/// Calls work(begin, end) for consecutive ranges of [0, rows) in OpenMP's threads. Torch uses them, too; a second pool
/// would compete for the same cores. ThreadSanitizer does not understand OpenMP, so its build uses std::jthread.
template <typename Work>
void parallel_for_rows(int64_t rows, int64_t row_elements, const Work& work) {
  const int64_t tasks = std::clamp<int64_t>(rows * row_elements / kElementsPerTask, 1, rows);
  const auto run_task = [&](int64_t task) { work(rows * task / tasks, rows * (task + 1) / tasks); };
#ifdef __SANITIZE_THREAD__
  std::vector<std::jthread> threads;
  for (int64_t task = 1; task < tasks; ++task) threads.emplace_back(run_task, task);
  run_task(0);
#else
#pragma omp parallel for if (tasks > 1)
  for (int64_t task = 0; task < tasks; ++task) run_task(task);
#endif
}

class GgufModel final : public PretrainedModel {
 public:
  GgufModel(const std::string& path, const OpenOptions& options)
      : gguf_(GgufFile::parse(MappedFile::open(path))), ignores_unknown_(options.ignore_unknown) {
    config_ = config_of_gguf(gguf_, ignores_unknown_);
    base_name_ = options.base_name.empty() ? repository_of_gguf(gguf_) : options.base_name;
    if (base_name_.empty()) base_name_ = path;
    tokenizer_config_ = tokenizer_config_of_gguf(gguf_);
    generation_config_ = generation_config_of_gguf(gguf_);
    for (const GgufTensor& tensor : gguf_.tensors)
      if (tensor.name != gguf_rope_tensor) add(tensor);
  }

  const std::string& path() const override { return gguf_.file->path(); }
  const std::string& base_name() const override { return base_name_; }
  bool ignores_unknown() const override { return ignores_unknown_; }
  std::vector<std::string> notes() const override {
    const std::vector<std::string> keys = unknown_keys_of_gguf(gguf_);
    std::vector<std::string> notes;
    for (const std::string& key : keys)
      notes.push_back(printable_path(path()) + ": ignored unknown key '" + printable(key) + "'");
    return notes;
  }
  const json& config() const override { return config_; }
  std::string tokenizer_json() const override {
    return tokenizer_json_from_gguf(gguf_.metadata, printable_path(path()));
  }
  std::string tokenizer_bytes() const override {
    const auto header = gguf_.file->bytes().first(gguf_.header_bytes);
    return {reinterpret_cast<const char*>(header.data()), header.size()};
  }
  const json& tokenizer_config() const override { return tokenizer_config_; }
  const json& generation_config() const override { return generation_config_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }

  void read(const StoredTensor& tensor, float* out) const override {
    const GgufType& type = gguf_type(tensor.type);
    if (const int64_t heads = permuted_heads(tensor.name); heads != 0)
      read_permuted(tensor, type, heads, out);
    else
      parallel_for_rows(static_cast<int64_t>(tensor.size) / type.block_bytes, type.block_elements,
                        [&](int64_t begin, int64_t end) {
                          dequantize(tensor.type, tensor.data + begin * type.block_bytes, end - begin,
                                     out + begin * type.block_elements);
                        });
  }

  bool is_direct(const StoredTensor& tensor) const override {
    const bool quantized =
        tensor.type != StoredType::f32 && tensor.type != StoredType::f16 && tensor.type != StoredType::bf16;
    return !quantized && permuted_heads(tensor.name) == 0;
  }

 private:
  void add(const GgufTensor& tensor) {
    const int64_t layers = config_["num_hidden_layers"].get<int64_t>();
    const std::string name = hf_name_of_gguf(tensor.name, layers);
    if (name.empty()) fail(tensor, "is not a tensor of a llama model with " + std::to_string(layers) + " layers");
    if (const int64_t heads = permuted_heads(name); heads != 0) {
      if (tensor.shape[0] % (2 * heads) != 0)
        fail(tensor, "has " + std::to_string(tensor.shape[0]) + " rows, which is not a multiple of " +
                         std::to_string(2 * heads) + ", twice the number of heads");
      if (tensor.shape.size() == 1 && gguf_type(tensor.type).block_elements != 1)
        fail(tensor, "is a quantized bias, which is not implemented");
    }
    tensors_.push_back({name, tensor.type, tensor.shape, tensor.data, tensor.size});
  }

  [[noreturn]] void fail(const GgufTensor& tensor, const std::string& what) const {
    throw InputError(printable_path(path()) + ": tensor '" + printable(tensor.name) + "' " + what);
  }

  static void read_permuted(const StoredTensor& tensor, const GgufType& type, int64_t heads, float* out) {
    const int64_t rows = tensor.shape[0], head = rows / heads;
    const int64_t row_bytes = static_cast<int64_t>(tensor.size) / rows, row_blocks = row_bytes / type.block_bytes;
    const int64_t row_elements = row_blocks * type.block_elements;
    parallel_for_rows(rows, row_elements, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        dequantize(tensor.type, tensor.data + unpermuted_row(row, head) * row_bytes, row_blocks,
                   out + row * row_elements);
    });
  }

  int64_t permuted_heads(const std::string& name) const {
    return peft::permuted_heads(name, config_["num_attention_heads"].get<int64_t>(),
                                config_["num_key_value_heads"].get<int64_t>());
  }

  GgufFile gguf_;
  bool ignores_unknown_;
  std::string base_name_;
  json config_, tokenizer_config_, generation_config_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

std::shared_ptr<const PretrainedModel> open_gguf(const std::string& path, const OpenOptions& options) {
  return std::make_shared<GgufModel>(path, options);
}

}  // namespace peft
