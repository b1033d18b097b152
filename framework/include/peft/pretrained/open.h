#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"

namespace peft {

struct OpenOptions {
  bool ignore_unknown = false;  ///< unknown keys of the config are noted (open_notes) instead of refused
  std::string base_name = {};   ///< PretrainedModel::base_name; "": from the files
};

/// Opens a Hugging Face folder or a .gguf file and maps its weights. The files are not trusted: throws InputError, with
/// the file and the reason, if one of them is invalid, or if `path` is something else; the message says what it is.
PEFT_API std::shared_ptr<const PretrainedModel> open_pretrained(const std::string& path,
                                                                const OpenOptions& options = {});

/// What a user should know about how the model's files were read, a line each: a head that is not tied although the
/// config says so, ignored keys. Throws as decoder_config().
PEFT_API std::vector<std::string> open_notes(const PretrainedModel& model);

}  // namespace peft
