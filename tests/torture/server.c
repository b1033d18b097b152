// Hundreds of faults in one start of a program: with PEFT_FAULT_SERVER="IN,OUT", two open files, the process stops at its
// first call on a path below PEFT_FAULT_PREFIX. For each line that comes from IN, a fault as PEFT_FAULT has it, a child
// continues from there with that fault; its wait status is written to OUT, and the next line is read. Such a process must
// have one thread.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault.h"

/// False at the end of what comes in.
static bool read_line(int in, char* line, size_t size) {
  size_t used = 0;
  while (used + 1 < size) {
    const ssize_t got = read(in, line + used, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    if (line[used] == '\n') break;
    ++used;
  }
  line[used] = '\0';
  return true;
}

void serve(void) {
  static bool asked = false;
  int in, out;
  const char* files = getenv("PEFT_FAULT_SERVER");
  if (asked || !files || sscanf(files, "%d,%d", &in, &out) != 2) return;
  asked = true;
  char line[256];
  while (read_line(in, line, sizeof line)) {
    const pid_t child = fork();
    if (child == 0) {
      close(in);
      close(out);
      set_fault(line);
      return;
    }
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    dprintf(out, "%d\n", status);
  }
  _exit(0);
}
