/* Calls of the operating system that fail, kill, or lie about the time, when they are told to. Loaded before libc (LD_PRELOAD) into a process of
   the tests, which arms it: SQLite's own calls go through it as well as Python's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { NONE, SYNC, NAME, REMOVE, WRITE, OPEN };

static int armed_kind = NONE, armed_error = 0;
static long left = 0, seen = 0;
static double ahead = 0;

/* The call number `number` (from 1) of `kind` fails with `error`; 0: the process dies there. */
void mailsec_arm(int kind, long number, int error) {
    armed_error = error;
    left = number;
    seen = 0;
    armed_kind = kind;
}

/* How many calls of the armed kind there were. */
long mailsec_seen(void) { return seen; }

/* The time of day is wrong by so many seconds from now on; the monotonic clock is not. */
void mailsec_set_clock(double seconds) { ahead = seconds; }

/* True where this call is the one. */
static int strikes(int kind) {
    if (kind != armed_kind) return 0;
    seen++;
    if (--left != 0) return 0;
    if (armed_error == 0) kill(getpid(), SIGKILL);
    errno = armed_error;
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

int fsync(int d) { REAL(int, fsync, int); return strikes(SYNC) ? -1 : real(d); }
int fdatasync(int d) { REAL(int, fdatasync, int); return strikes(SYNC) ? -1 : real(d); }

int link(const char *a, const char *b) { REAL(int, link, const char *, const char *); return strikes(NAME) ? -1 : real(a, b); }
int linkat(int d, const char *a, int e, const char *b, int f) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    return strikes(NAME) ? -1 : real(d, a, e, b, f);
}
int rename(const char *a, const char *b) { REAL(int, rename, const char *, const char *); return strikes(NAME) ? -1 : real(a, b); }
int renameat(int d, const char *a, int e, const char *b) {
    REAL(int, renameat, int, const char *, int, const char *);
    return strikes(NAME) ? -1 : real(d, a, e, b);
}

int unlink(const char *a) { REAL(int, unlink, const char *); return strikes(REMOVE) ? -1 : real(a); }
int unlinkat(int d, const char *a, int f) { REAL(int, unlinkat, int, const char *, int); return strikes(REMOVE) ? -1 : real(d, a, f); }

ssize_t write(int d, const void *b, size_t n) {
    REAL(ssize_t, write, int, const void *, size_t);
    return d > 2 && strikes(WRITE) ? -1 : real(d, b, n);
}
ssize_t pwrite64(int d, const void *b, size_t n, off_t o) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off_t);
    return strikes(WRITE) ? -1 : real(d, b, n, o);
}
ssize_t pwrite(int d, const void *b, size_t n, off_t o) { return pwrite64(d, b, n, o); }
int ftruncate64(int d, off_t n) { REAL(int, ftruncate64, int, off_t); return strikes(WRITE) ? -1 : real(d, n); }
int ftruncate(int d, off_t n) { return ftruncate64(d, n); }

/* Only what makes a file: reading ones that are there needs no inode. */
static int makes(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

int open64(const char *a, int flags, ...) {
    REAL(int, open64, const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = makes(flags) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return makes(flags) && strikes(OPEN) ? -1 : real(a, flags, mode);
}
int open(const char *a, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = makes(flags) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open64(a, flags, mode);
}
int openat64(int d, const char *a, int flags, ...) {
    REAL(int, openat64, int, const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = makes(flags) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return makes(flags) && strikes(OPEN) ? -1 : real(d, a, flags, mode);
}
int openat(int d, const char *a, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = makes(flags) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat64(d, a, flags, mode);
}

static void shift(struct timespec *t) {
    long seconds = (long)ahead;
    t->tv_sec += seconds;
}
int clock_gettime(clockid_t c, struct timespec *t) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int done = real(c, t);
    if (done == 0 && (c == CLOCK_REALTIME || c == CLOCK_REALTIME_COARSE)) shift(t);
    return done;
}
