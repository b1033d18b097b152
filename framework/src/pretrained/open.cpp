#include "peft/pretrained/open.h"

#include <filesystem>

#include "architecture/read_config.h"
#include "files/folder_contents.h"
#include "peft/base/error.h"
#include "pretrained/gguf/gguf_model.h"
#include "pretrained/hf_folder.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

/// What a folder without config.json holds, and what to give instead.
std::string describe_folder(const fs::path& folder) {
  std::error_code error;
  const std::string text = "has no config.json";
  if (const std::string snapshot = subfolder_with(folder / "snapshots", "", "config.json"); !snapshot.empty())
    return text + "; it is a folder of the Hugging Face hub's cache: give " + printable_path(snapshot);
  if (const std::string gguf = file_with(folder, ".gguf"); !gguf.empty())
    return text + ", but a GGUF file: give " + printable_path(gguf);
  if (fs::exists(folder / "adapter_config.json", error))
    return text + ", but an adapter: give its base as the model, and this folder as the adapter";
  if (const std::string inside = subfolder_with(folder, "checkpoint-", "config.json"); !inside.empty())
    return text + ", but checkpoints of a training: give one of them, such as " + printable_path(inside);
  if (const std::string inside = subfolder_with(folder, "", "config.json"); !inside.empty())
    return text + ", but a folder that does: give " + printable_path(inside);
  return text;
}

std::string describe_file(const fs::path& file) {
  const std::string extension = file.extension().string();
  if (extension == ".safetensors" || extension == ".bin" || extension == ".json")
    return "is one file of a model; give the folder that holds it, with its config.json";
  return "";
}

}  // namespace

std::shared_ptr<const PretrainedModel> open_pretrained(const std::string& path, const OpenOptions& options) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status))
    throw InputError(printable_path(path) + ": no such model; expected a Hugging Face folder or a .gguf file" +
                     hub_hint(path));
  if (fs::is_directory(status)) {
    // Also a broken link is read, so that the reason is reported.
    if (fs::symlink_status(fs::path(path) / "config.json", error).type() == fs::file_type::not_found)
      throw InputError(printable_path(path) + ": " + describe_folder(path));
    return open_hf_folder(path, options);
  }
  if (const std::string what = describe_file(path); !what.empty()) throw InputError(printable_path(path) + ": " + what);
  return open_gguf(path, options);
}

std::vector<std::string> open_notes(const PretrainedModel& model) {
  std::vector<std::string> notes = model.notes();
  for (std::string& note : read_config(model.config(), model.path(), model.ignores_unknown()).notes)
    notes.push_back(std::move(note));
  return notes;
}

}  // namespace peft
