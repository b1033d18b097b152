#pragma once

/// Gives torch its CPU allocator and its threads, before the first tensor. Throws std::system_error where the system
/// has none to give: OpenMP would end the process, with a message and an exit code of its own.
void start_torch();
