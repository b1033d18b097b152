#pragma once

/// Marks what crosses the border between libpeft, its plugins and programs that link it.
/// Everything else is built with hidden visibility.
#define PEFT_API __attribute__((visibility("default")))
