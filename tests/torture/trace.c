// The trace of a process's calls on files below PEFT_FAULT_PREFIX, with what was written: enough to build what the folder
// was after each of them. Only calls that went well are in it, each as
//   KIND OFFSET SIZE_OF_PATH SIZE_OF_OTHER SIZE_OF_DATA newline, path, other path, data
// The harness reads it (replay.py).
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fault.h"

static int file = -1;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
  const char* path = getenv("PEFT_FAULT_TRACE");
  if (path) file = (int)syscall(SYS_open, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
}

/// By the system call itself: write() is one of those that are traced.
static void put(const void* data, size_t size) {
  for (const char* at = data; size > 0;) {
    const long done = syscall(SYS_write, file, at, size);
    if (done < 0) _exit(99);  // a trace with a hole would prove nothing
    at += done;
    size -= (size_t)done;
  }
}

void trace(const char* kind, const char* path, const char* other, off_t offset, const void* data, size_t size) {
  if (file < 0) return;
  char head[128];
  const int before = errno;
  pthread_mutex_lock(&one_at_a_time);
  const int length = snprintf(head, sizeof head, "%s %lld %zu %zu %zu\n", kind, (long long)offset, strlen(path),
                              strlen(other), size);
  put(head, (size_t)length);
  put(path, strlen(path));
  put(other, strlen(other));
  put(data, size);
  pthread_mutex_unlock(&one_at_a_time);
  errno = before;
}
