#pragma once

#include <filesystem>
#include <string>

#include "peft/models/model.h"

namespace peft {

/// Names of an adapter's files.
constexpr const char* kAdapterConfig = "adapter_config.json";
constexpr const char* kAdapterWeights = "adapter_model.safetensors";
constexpr const char* kEncoderState = "adapter_training.safetensors";
constexpr const char* kAdapterState = "adapter_state.safetensors";

/// If `folder` is not an adapter's: what it is, and what to give instead; "" if it has an adapter_config.json, or if
/// nothing better can be said than that it has none.
std::string describe_other_folder(const std::string& folder);
/// Throws InputError if the weights exist only as a Python pickle.
void check_not_pickled(const std::filesystem::path& folder);
/// Removes files of an older adapter, so that they are never next to new weights: its config if it differs from
/// `config`, its encoder's state and its tokenizer. A folder that also holds a model keeps its tokenizer.
void remove_stale_adapter_files(const std::filesystem::path& folder, const std::string& config);
/// Copies atomically. Throws InputError if `from` cannot be read.
void copy_adapter_file(const std::filesystem::path& from, const std::filesystem::path& to);
/// Writes the model's tokenizer if it differs from the base's.
void write_adapter_tokenizer(const Model& model, const std::string& folder);

}  // namespace peft
