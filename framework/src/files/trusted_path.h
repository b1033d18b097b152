#pragma once
// Checks that only root and the effective user can have created the file that a path leads to, as sudo does.

#include <sys/stat.h>

#include <stdexcept>
#include <string>

namespace peft::detail {

/// Names the path and says why it is not trusted; the caller makes an Error of it.
struct UntrustedPath : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws UntrustedPath unless `path`, which has `status`, belongs to root or the effective user and nobody else may
/// write it. Its group may, if it is the user's private group: of the user's name, without other members.
void check_owner(const std::string& path, const struct stat& status);

/// Throws UntrustedPath unless the absolute path `folder` leads to a directory that passes check_owner(), and so do all
/// directories on the way from "/", including those of symbolic links. A parent directory may be writable for everyone
/// if it is sticky, like /tmp: nobody else can rename or remove its entries.
void check_trusted_folder(const std::string& folder);

}  // namespace peft::detail
