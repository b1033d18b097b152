#pragma once

#include <filesystem>
#include <string>

namespace peft {

/// The last subfolder of `folder` whose name starts with `prefix` and that holds `file` ("": anything), in the order of
/// numbers at the end of names; "" if there is none.
std::string subfolder_with(const std::filesystem::path& folder, const std::string& prefix, const std::string& file);
/// The first file in `folder` whose name ends with `extension`; "" if there is none.
std::string file_with(const std::filesystem::path& folder, const std::string& extension);
/// For a path that does not exist but ends like a name on the Hugging Face hub: how to download it, as a sentence to
/// append; else "".
std::string hub_hint(const std::string& path);

}  // namespace peft
