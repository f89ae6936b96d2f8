/* Stands between a program and the system: see preload.rs, which knows the same layout.
 *
 * Calls nothing that could allocate, and works before anybody else is ready: a program may bring an
 * allocator that asks for the time. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { FSYNC, FDATASYNC, WRITE, PWRITE, PREAD, CALLS };

struct control {
  _Atomic int64_t off_ns;    /* added to the wall clock */
  _Atomic int64_t fast_ppm;  /* it runs so many millionths too fast */
  _Atomic int64_t since_ns;  /* since then, by the right clock */
  struct {
    _Atomic int64_t to_fail; /* so many calls fail; all if negative */
    _Atomic int64_t failed;  /* so many did */
  } calls[CALLS];
  _Atomic int64_t holds; /* syncs wait before they begin */
  _Atomic int64_t held;  /* so many did */
};

static struct control *control;

__attribute__((constructor)) static void map_control(void) {
  const char *path = getenv("LAB_CONTROL");
  /* Not by open(), which may be that of a library that is not ready yet. */
  int fd = path == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
  void *mapped = fd < 0 ? MAP_FAILED
                        : mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) {
    _exit(99);
  }
  close(fd);
  control = mapped;
}

static int fails(int call) {
  if (control == NULL) {
    return 0;
  }
  int64_t left = atomic_load(&control->calls[call].to_fail);
  while (left > 0 && !atomic_compare_exchange_weak(&control->calls[call].to_fail, &left, left - 1)) {
  }
  if (left == 0) {
    return 0;
  }
  atomic_fetch_add(&control->calls[call].failed, 1);
  errno = EIO;
  return 1;
}

/* Outside of the system, so that a signal stops or ends it at once. */
static void hold(void) {
  if (control == NULL || atomic_load(&control->holds) == 0) {
    return;
  }
  atomic_fetch_add(&control->held, 1);
  while (atomic_load(&control->holds) != 0) {
    struct timespec moment = {0, 1000000};
    syscall(SYS_nanosleep, &moment, NULL);
  }
}

int fsync(int fd) {
  hold();
  return fails(FSYNC) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
  hold();
  return fails(FDATASYNC) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

/* Only what goes to a disk: not sockets, not what wakes threads, not the program's own output. */
static int is_disk(int fd) {
  struct stat file;
  return fd > STDERR_FILENO && fstat(fd, &file) == 0 && S_ISREG(file.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t length) {
  int asked = control != NULL && atomic_load(&control->calls[WRITE].to_fail) != 0;
  return asked && is_disk(fd) && fails(WRITE) ? -1 : syscall(SYS_write, fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
  return fails(PWRITE) ? -1 : syscall(SYS_pwrite64, fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
  return pwrite64(fd, bytes, length, at);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t at) {
  return fails(PREAD) ? -1 : syscall(SYS_pread64, fd, bytes, length, at);
}

ssize_t pread(int fd, void *bytes, size_t length, off_t at) {
  return pread64(fd, bytes, length, at);
}

static int64_t wall_ns(void) {
  struct timespec right;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &right);
  int64_t ns = right.tv_sec * INT64_C(1000000000) + right.tv_nsec;
  if (control == NULL) {
    return ns;
  }
  int64_t ppm = atomic_load(&control->fast_ppm);
  int64_t since = ppm == 0 ? 0 : (ns - atomic_load(&control->since_ns)) / 1000000 * ppm;
  return ns + atomic_load(&control->off_ns) + since;
}

/* The monotonic clock is right, and so are those of processes and threads. */
int clock_gettime(clockid_t clock, struct timespec *told) {
  if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) {
    return (int)syscall(SYS_clock_gettime, clock, told);
  }
  int64_t ns = wall_ns();
  told->tv_sec = ns / 1000000000;
  told->tv_nsec = ns % 1000000000;
  return 0;
}

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
  (void)zone;
  int64_t ns = wall_ns();
  told->tv_sec = ns / 1000000000;
  told->tv_usec = ns % 1000000000 / 1000;
  return 0;
}

time_t time(time_t *told) {
  time_t seconds = wall_ns() / 1000000000;
  if (told != NULL) {
    *told = seconds;
  }
  return seconds;
}
