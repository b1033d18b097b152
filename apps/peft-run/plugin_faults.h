#pragma once

/// From now on a plugin that crashes, or that ends the process without being asked, is named, and the exit code is that
/// of plugins. Call it once, on the main thread.
void name_plugins_that_end_the_process();

/// For _exit() and std::_Exit(), which call no function of std::atexit: ends the process if a plugin is active and
/// `caller`, an address, is not in libpeft, which calls them, too.
void name_plugin_on_immediate_exit(const void* caller);

/// Ends the process as a handler of the signal does: if a plugin is active, it is named; otherwise as without a
/// handler.
void end_by_signal(int number);

/// Ends the process at once, from a signal handler, too. _exit() is there for plugins, which it names.
[[noreturn]] void end_process(int code);
