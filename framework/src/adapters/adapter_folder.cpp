#include "adapters/adapter_folder.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "files/atomic_file.h"
#include "files/descriptor.h"
#include "files/folder_contents.h"
#include "peft/base/error.h"
#include "peft/files/pretrained_model.h"
#include "peft/pretrained/vocabulary_overlay.h"
#include "pretrained/tokenizer_files.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

/// Returns whether the file existed. Throws ResourceError if it cannot be removed.
bool remove_file(const fs::path& path) {
  std::error_code error;
  const bool existed = fs::remove(path, error);
  if (error) throw ResourceError(printable_path(path.string()) + ": cannot be removed: " + error.message());
  return existed;
}

bool file_equals(const fs::path& path, const std::string& text) {
  std::ifstream file(path, std::ios::binary);
  return file && std::string(std::istreambuf_iterator<char>(file), {}) == text;
}

}  // namespace

std::string describe_other_folder(const std::string& path) {
  const fs::path folder = path;
  std::error_code error;
  const auto status = fs::status(folder, error);
  if (!fs::exists(status)) return hub_hint(path).empty() ? "" : "no such adapter" + hub_hint(path);
  if (path.ends_with(".gguf")) return "is a GGUF file; give the HF PEFT folder that it was made from";
  if (!fs::is_directory(status)) return "is a file; give the folder that holds it";
  if (fs::symlink_status(folder / kAdapterConfig, error).type() != fs::file_type::not_found) return "";
  if (const std::string snapshot = subfolder_with(folder / "snapshots", "", kAdapterConfig); !snapshot.empty())
    return "is a folder of the Hugging Face hub's cache: give " + printable_path(snapshot);
  if (const std::string checkpoint = subfolder_with(folder, "checkpoint-", kAdapterConfig); !checkpoint.empty())
    return "has no adapter_config.json, but checkpoints of a training: give one of them, such as " +
           printable_path(checkpoint);
  if (const std::string inside = subfolder_with(folder, "", kAdapterConfig); !inside.empty())
    return "has no adapter_config.json, but a folder that does: give " + printable_path(inside);
  if (fs::exists(folder / "config.json", error))
    return "has no adapter_config.json: it is a model, not an adapter; give it as the model";
  return "";
}

void check_not_pickled(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / kAdapterWeights, error) || !fs::exists(folder / "adapter_model.bin", error)) return;
  throw InputError(
      printable_path(folder.string()) +
      ": the weights are a Python pickle, adapter_model.bin, which can run code and is not loaded; convert "
      "it to safetensors with HF PEFT: PeftModel.from_pretrained(base, DIR).save_pretrained(NEW)");
}

void remove_stale_adapter_files(const fs::path& folder, const std::string& config) {
  std::error_code error;
  const bool has_adapter = fs::exists(folder / kAdapterWeights, error) || fs::exists(folder / kAdapterConfig, error);
  bool changed = !file_equals(folder / kAdapterConfig, config) && remove_file(folder / kAdapterConfig);
  changed = remove_file(folder / kEncoderState) || changed;
  if (has_adapter && !fs::exists(folder / "config.json", error)) {
    for (const std::string& name : tokenizer_files()) changed = remove_file(folder / name) || changed;
    for (const fs::path& name : additional_templates(folder.string())) changed = remove_file(name) || changed;
    fs::remove(folder / kTemplateFolder, error);  // if nothing else is in it
  }
  if (changed && !sync_folder(folder.string()))
    throw ResourceError(printable_path(folder.string()) + " cannot be synced: " + std::strerror(errno));
}

void copy_adapter_file(const fs::path& from, const fs::path& to) {
  std::ifstream file(from, std::ios::binary);
  AtomicFile copy(to.string());
  std::vector<char> chunk(std::size_t{1} << 20);
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || file.gcount() > 0)
    copy.write(chunk.data(), static_cast<std::size_t>(file.gcount()));
  if (!file.eof()) throw InputError(printable_path(from.string()) + ": cannot be read");
  copy.commit();
}

void write_adapter_tokenizer(const Model& model, const std::string& folder) {
  const auto& base = model.origin().checkpoint;
  const AddedVocabulary* added = base != nullptr ? base->added() : nullptr;
  if (added != nullptr && (!added->tokens.empty() || added->own_config)) write_tokenizer(*base, folder);
}

}  // namespace peft
