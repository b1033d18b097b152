// What fault.c, trace.c and server.c of the fault shim share. See fault.c.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/// Takes the fault of a line "KINDS N ACTION ERRNO once|lasting", e.g. "write,fsync 3 fail 28 lasting"; calls are
/// counted from here on. Ends the process if the line is not valid.
void set_fault(const char* line);

/// Where a harness asked for a server: stays in the first call of this, and returns in one child for each line that the
/// harness sends. Elsewhere it returns at once.
void serve(void);

/// Writes to the file of PEFT_FAULT_TRACE that a call was made: `kind`, the path and, for those that have two, the
/// other one; for a write its offset and bytes, for a truncation the length as offset.
void trace(const char* kind, const char* path, const char* other, off_t offset, const void* data, size_t size);
