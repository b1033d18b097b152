#pragma once

/// A model's file that is cut off while it is mapped kills whoever touches the pages that are gone (SIGBUS). From now
/// on that ends the process with the file's name and the exit code of bad input.
void watch_mapped_files();
