#pragma once
// Whether only root and the effective user can have put there what a path leads to: sudo's rule.

#include <sys/stat.h>

#include <string>

namespace peft::detail {

/// Throws PluginError unless `status`, that of `path`, is of root or the effective user, and nobody else may write it.
void check_owner(const std::string& path, const struct stat& status);

/// Throws PluginError unless the absolute path `folder` leads to a directory that passes check_owner, as do all that it
/// goes through from "/" on, those of symbolic links too. Only those above it may be writable for all, where they are
/// sticky like /tmp: there nobody else can rename or remove what lies in them.
void check_trusted_folder(const std::string& folder);

}  // namespace peft::detail
