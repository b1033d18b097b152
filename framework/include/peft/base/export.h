#pragma once

/// Exports a symbol from libpeft to plugins and to programs that link it. All other symbols are hidden.
#define PEFT_API __attribute__((visibility("default")))
