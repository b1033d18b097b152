#pragma once

/// From now on a SIGBUS on a mapped model file, which means that the file was truncated while in use, ends the process
/// with the file's name and the exit code of bad input.
void watch_mapped_files();
