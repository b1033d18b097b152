#pragma once

/// Makes std::cout and std::cerr give up what their reader does not take once a signal has asked the run to stop: a
/// terminal that is paused, or a pipe whose reader hangs, must not keep a run from saving. Call it once, first.
void let_signals_interrupt_output();

/// Writes to stderr, from a signal handler, too. Does nothing if the reader is stalled.
void print_in_handler(const char* text);
