#include "options/toml_file.h"

#include <filesystem>
#include <fstream>

#include "peft/base/error.h"

namespace peft::detail {

std::pair<std::shared_ptr<const Source>, Entries> read_toml_file(const std::string& path, int order) {
  constexpr std::uintmax_t max_size = 16 << 20;
  std::error_code error;
  const std::filesystem::path file(path);
  if (!std::filesystem::is_regular_file(file, error))
    throw ConfigError(printable_path(path) + ": " + (error ? error.message() : "not a regular file"));
  const std::uintmax_t size = std::filesystem::file_size(file, error);
  if (size > max_size)
    throw ConfigError(printable_path(path) + ": larger than 16 MiB, the limit for an experiment file");
  std::ifstream stream(file, std::ios::binary);
  std::string text(size, '\0');
  if (!stream.read(text.data(), static_cast<std::streamsize>(size)))
    throw ConfigError(printable_path(path) + ": cannot be read");
  const auto source = std::make_shared<Source>(Source{path, std::filesystem::absolute(file).parent_path(), order});
  return {source, parse_toml(text, source)};
}

}  // namespace peft::detail
