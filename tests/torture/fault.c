// A library for LD_PRELOAD that lets calls on files fail, or kills the process in them.
//
//   PEFT_FAULT_PREFIX   absolute path; only calls on paths that begin with it count
//   PEFT_FAULT          "KINDS N ACTION ERRNO once|lasting": what befalls the N-th call of these kinds
//   PEFT_FAULT_REPORT   a file that receives the call that was hit: "kind path"
//   PEFT_FAULT_SPACE    any value: statvfs reports a terabyte free, as if it were used up only later
//   PEFT_FAULT_TRACE    see trace.c
//   PEFT_FAULT_SERVER   see server.c
//
// Kinds: open (for writing), look (for reading, folders too), write, fsync, rename, unlink, mkdir, truncate; and, of any
// path or none, memory: C++'s operator new, and anonymous memory from mmap.
// Actions: kill (SIGKILL before the call), fail (with ERRNO; lasting: every later one too), short (half of a write is
// done), torn (half of a write is done, then SIGKILL).
#define _GNU_SOURCE
#include "fault.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/// The libc function that this file wraps.
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum verdict { GO, FAIL, HALF, HALF_AND_DIE };

static struct {
  char kinds[128], action[16];
  long at;
  int error;
  bool lasting;
} fault;
static long seen;

void set_fault(const char* line) {
  char duration[16] = "";
  if (sscanf(line, "%127s %ld %15s %d %15s", fault.kinds, &fault.at, fault.action, &fault.error, duration) != 5) {
    fprintf(stderr, "fault: '%s' is not a valid fault\n", line);
    _exit(99);
  }
  fault.lasting = strcmp(duration, "lasting") == 0;
  seen = 0;
}

__attribute__((constructor)) static void begin(void) {
  const char* line = getenv("PEFT_FAULT");
  if (line) set_fault(line);
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static void report(const char* kind, const char* path) {
  const char* file = getenv("PEFT_FAULT_REPORT");
  const int fd = file ? REAL(open)(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
  if (fd < 0) return;
  dprintf(fd, "%s %s\n", kind, path);
  close(fd);
}

/// Whether `kind` is one of the words between the commas of fault.kinds.
static bool counts(const char* kind) {
  const size_t size = strlen(kind);
  for (const char* at = fault.kinds; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
    if (strncmp(at, kind, size) == 0 && (at[size] == ',' || at[size] == '\0')) return true;
  return false;
}

/// What is to become of the next call of this kind; after FAIL errno says why.
static enum verdict count(const char* kind, const char* path) {
  if (!counts(kind)) return GO;
  const long n = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
  if (n < fault.at || (n > fault.at && !fault.lasting)) return GO;
  if (n == fault.at) report(kind, path);
  if (strcmp(fault.action, "kill") == 0) die();
  if (strcmp(fault.action, "short") == 0) return HALF;
  if (strcmp(fault.action, "torn") == 0) return HALF_AND_DIE;
  errno = fault.error;
  return FAIL;
}

static enum verdict strike(const char* kind, const char* path) {
  serve();
  return count(kind, path);
}

/// The path of an open file or folder. False: it is not below the prefix.
static bool path_of(int fd, char* path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const int before = errno;
  const ssize_t size = readlink(link, path, PATH_MAX - 1);
  errno = before;
  path[size < 0 ? 0 : size] = '\0';
  const char* prefix = getenv("PEFT_FAULT_PREFIX");
  return prefix && strncmp(path, prefix, strlen(prefix)) == 0;
}

/// The absolute path of `name` as seen from the folder `dir`. False: it is not below the prefix.
static bool place(int dir, const char* name, char* path) {
  if (name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
  } else {
    if (dir != AT_FDCWD) path_of(dir, path);
    if (dir == AT_FDCWD && !getcwd(path, PATH_MAX)) return false;
    const size_t size = strlen(path);
    snprintf(path + size, PATH_MAX - size, "/%s", name);
  }
  const char* prefix = getenv("PEFT_FAULT_PREFIX");
  return prefix && strncmp(path, prefix, strlen(prefix)) == 0;
}

static int open_at(int dir, const char* name, int flags, mode_t mode) {
  char path[PATH_MAX];
  const bool ours = place(dir, name, path), writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
  if (ours && strike(writes ? "open" : "look", path) == FAIL) return -1;
  const int fd = REAL(openat)(dir, name, flags, mode);
  if (ours && writes && fd >= 0) trace("open", path, flags & O_TRUNC ? "empty" : "", 0, NULL, 0);
  return fd;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPEN(name, dir, parameters)             \
  int name parameters {                         \
    va_list rest;                               \
    va_start(rest, flags);                      \
    const mode_t mode = mode_of(flags, rest);   \
    va_end(rest);                               \
    return open_at(dir, path, flags, mode);     \
  }
OPEN(open, AT_FDCWD, (const char* path, int flags, ...))
OPEN(open64, AT_FDCWD, (const char* path, int flags, ...))
OPEN(openat, dir, (int dir, const char* path, int flags, ...))
OPEN(openat64, dir, (int dir, const char* path, int flags, ...))

static FILE* open_stream(const char* name, const char* mode) {
  char path[PATH_MAX];
  const bool ours = place(AT_FDCWD, name, path), writes = strpbrk(mode, "wa+");
  if (ours && strike(writes ? "open" : "look", path) == FAIL) return NULL;
  FILE* file = REAL(fopen)(name, mode);
  if (ours && writes && file) trace("open", path, mode[0] == 'w' ? "empty" : "", 0, NULL, 0);
  return file;
}
FILE* fopen(const char* path, const char* mode) { return open_stream(path, mode); }
FILE* fopen64(const char* path, const char* mode) { return open_stream(path, mode); }

DIR* opendir(const char* name) {
  char path[PATH_MAX];
  if (place(AT_FDCWD, name, path) && strike("look", path) == FAIL) return NULL;
  return REAL(opendir)(name);
}

ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  char path[PATH_MAX];
  const bool ours = path_of(fd, path);
  const enum verdict verdict = ours ? strike("write", path) : GO;
  if (verdict == FAIL) return -1;
  const bool all = verdict == GO;
  const struct iovec half = {parts[0].iov_base, all ? 0 : (parts[0].iov_len + 1) / 2};
  ssize_t done;
  if (offset < 0)
    done = REAL(writev)(fd, all ? parts : &half, all ? count : 1);
  else
    done = REAL(pwritev)(fd, all ? parts : &half, all ? count : 1, offset);
  if (!ours) return done;
  off_t at = offset < 0 ? lseek(fd, 0, SEEK_CUR) - done : offset;
  ssize_t left = done;
  for (int i = 0; i < count && left > 0; ++i) {
    const size_t size = (size_t)left < parts[i].iov_len ? (size_t)left : parts[i].iov_len;
    trace("write", path, "", at, parts[i].iov_base, size);
    at += (off_t)size;
    left -= (ssize_t)size;
  }
  if (verdict == HALF_AND_DIE) die();
  return done;
}
ssize_t pwritev64(int fd, const struct iovec* parts, int count, off64_t offset) {
  return pwritev(fd, parts, count, offset);
}
ssize_t writev(int fd, const struct iovec* parts, int count) { return pwritev(fd, parts, count, -1); }
ssize_t write(int fd, const void* data, size_t size) {
  const struct iovec part = {(void*)data, size};
  return pwritev(fd, &part, 1, -1);
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  const struct iovec part = {(void*)data, size};
  return pwritev(fd, &part, 1, offset);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }

/// A call on an open file that gives 0 where it went well.
#define ON_FILE(name, kind, parameters, arguments, length)      \
  int name parameters {                                         \
    char path[PATH_MAX];                                        \
    const bool ours = path_of(fd, path);                        \
    if (ours && strike(kind, path) == FAIL) return -1;          \
    const int failed = REAL(name) arguments;                    \
    if (ours && !failed) trace(kind, path, "", length, NULL, 0); \
    return failed;                                              \
  }
ON_FILE(fsync, "fsync", (int fd), (fd), 0)
ON_FILE(fdatasync, "fsync", (int fd), (fd), 0)
ON_FILE(ftruncate, "truncate", (int fd, off_t size), (fd, size), size)
ON_FILE(ftruncate64, "truncate", (int fd, off64_t size), (fd, size), size)

/// A call on a name that gives 0 where it went well.
#define ON_NAME(name, kind, parameters, arguments, dir)      \
  int name parameters {                                      \
    char where[PATH_MAX];                                    \
    const bool ours = place(dir, path, where);               \
    if (ours && strike(kind, where) == FAIL) return -1;      \
    const int failed = REAL(name) arguments;                 \
    if (ours && !failed) trace(kind, where, "", 0, NULL, 0); \
    return failed;                                           \
  }
ON_NAME(unlink, "unlink", (const char* path), (path), AT_FDCWD)
ON_NAME(rmdir, "unlink", (const char* path), (path), AT_FDCWD)
ON_NAME(remove, "unlink", (const char* path), (path), AT_FDCWD)
ON_NAME(unlinkat, "unlink", (int dir, const char* path, int flags), (dir, path, flags), dir)
ON_NAME(mkdir, "mkdir", (const char* path, mode_t mode), (path, mode), AT_FDCWD)
ON_NAME(mkdirat, "mkdir", (int dir, const char* path, mode_t mode), (dir, path, mode), dir)

int renameat2(int from_dir, const char* from, int to_dir, const char* to, unsigned flags) {
  char old[PATH_MAX], new[PATH_MAX];
  const bool from_ours = place(from_dir, from, old), to_ours = place(to_dir, to, new);
  if ((from_ours || to_ours) && strike("rename", from_ours ? old : new) == FAIL) return -1;
  const int failed = REAL(renameat2)(from_dir, from, to_dir, to, flags);
  if ((from_ours || to_ours) && !failed) trace(flags & RENAME_EXCHANGE ? "exchange" : "rename", old, new, 0, NULL, 0);
  return failed;
}
int rename(const char* from, const char* to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_dir, const char* from, int to_dir, const char* to) {
  return renameat2(from_dir, from, to_dir, to, 0);
}

int statvfs(const char* path, struct statvfs* result) {
  const int failed = REAL(statvfs)(path, result);
  if (!failed && getenv("PEFT_FAULT_SPACE")) result->f_bavail = result->f_bfree = ((fsblkcnt_t)1 << 40) / result->f_frsize;
  return failed;
}
int statvfs64(const char* path, struct statvfs64* result) { return statvfs(path, (struct statvfs*)result); }

/// More than there is: what the real operator new then throws is its own.
static size_t asked(size_t size) { return count("memory", "operator new") == FAIL ? PTRDIFF_MAX : size; }

#define NEW(name, parameters, ...)                                           \
  void* name parameters {                                                    \
    static void*(*real) parameters;                                          \
    if (!real) real = (void*(*) parameters)dlsym(RTLD_NEXT, #name);          \
    return real(__VA_ARGS__);                                                \
  }
NEW(_Znwm, (size_t size), asked(size))
NEW(_Znam, (size_t size), asked(size))
NEW(_ZnwmSt11align_val_t, (size_t size, size_t alignment), asked(size), alignment)
NEW(_ZnamSt11align_val_t, (size_t size, size_t alignment), asked(size), alignment)

void* mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) {
  if (flags & MAP_ANONYMOUS && count("memory", "mmap") == FAIL) return MAP_FAILED;
  return REAL(mmap)(at, size, protection, flags, fd, offset);
}
void* mmap64(void* at, size_t size, int protection, int flags, int fd, off64_t offset) {
  return mmap(at, size, protection, flags, fd, offset);
}
