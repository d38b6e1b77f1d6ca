/* Makes system calls on the files below one folder fail or be short. Loaded with LD_PRELOAD; see faults.py.

   Nothing happens before faults_arm() is called. Calls through descriptors count by the path of the open file. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define DEATH -1

static char folder[PATH_MAX];
static char armed_call[32];
static long first;
static int error_number; /* 0: a read or write is short. DEATH: the process is killed before the call */
static int lasts;        /* whether all later calls fail as well */
static int is_armed;

static const char *const CALLS[] = {"read",     "write", "open",   "close", "rename", "fallocate",
                                    "truncate", "mkdir", "unlink", "stat",  "flock",  "fsync", "chmod"};
#define N_CALLS (sizeof CALLS / sizeof *CALLS)
static atomic_long *n_calls; /* by kind of call; shared with processes that are forked later */

void faults_arm(const char *below, const char *call, long n, int error, int all_later)
{
    snprintf(folder, sizeof folder, "%s", below);
    snprintf(armed_call, sizeof armed_call, "%s", call);
    first = n;
    error_number = error;
    lasts = all_later;
    n_calls = mmap(NULL, N_CALLS * sizeof *n_calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    is_armed = 1;
}

/* How many calls of a kind there were. */
long faults_count(const char *call)
{
    for (size_t i = 0; i < N_CALLS; i++)
        if (!strcmp(call, CALLS[i]))
            return n_calls[i];
    return -1;
}

static int is_below(const char *path)
{
    char absolute[2 * PATH_MAX];
    if (path[0] != '/') {
        char current[PATH_MAX];
        if (!getcwd(current, sizeof current))
            return 0;
        snprintf(absolute, sizeof absolute, "%s/%s", current, path);
        path = absolute;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int is_open_below(int descriptor)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_below(path);
}

static int is_meant(int is_below_folder, const char *call)
{
    if (!is_below_folder)
        return 0;
    size_t i = 0;
    while (strcmp(call, CALLS[i]))
        i++;
    long n = atomic_fetch_add(&n_calls[i], 1) + 1;
    if (strcmp(call, armed_call))
        return 0;
    int is_hit = n == first || (lasts && n > first && first > 0);
    if (is_hit && error_number == DEATH)
        kill(getpid(), SIGKILL);
    return is_hit;
}

/* Whether this call fails. If not, errno stays as it is. */
static int hits(const char *call, const char *path)
{
    int saved = errno;
    int hit = is_armed && path && is_meant(is_below(path), call);
    errno = hit ? error_number : saved;
    return hit;
}

static int hits_open(const char *call, int descriptor)
{
    int saved = errno;
    int hit = is_armed && is_meant(is_open_below(descriptor), call);
    errno = hit ? error_number : saved;
    return hit;
}

/* A path that is relative to a folder that is open counts by that folder. */
static int hits_at(const char *call, int descriptor, const char *path)
{
    return descriptor == AT_FDCWD || path[0] == '/' ? hits(call, path) : hits_open(call, descriptor);
}

#define REAL(name, result, ...)                                       \
    static result (*real)(__VA_ARGS__);                               \
    if (!real)                                                        \
        real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

static size_t half(size_t n)
{
    return n > 1 ? n / 2 : n;
}

#define TRANSFER(name, call, buffer_type, more_types, more_names)              \
    ssize_t name(int descriptor, buffer_type buffer, size_t n more_types)      \
    {                                                                          \
        REAL(name, ssize_t, int, buffer_type, size_t more_types)               \
        if (hits_open(call, descriptor)) {                                     \
            if (error_number)                                                  \
                return -1;                                                     \
            n = half(n);                                                       \
        }                                                                      \
        return real(descriptor, buffer, n more_names);                         \
    }

#define COMMA ,
TRANSFER(read, "read", void *, , )
TRANSFER(pread, "read", void *, COMMA off_t offset, COMMA offset)
TRANSFER(pread64, "read", void *, COMMA off64_t offset, COMMA offset)
TRANSFER(write, "write", const void *, , )
TRANSFER(pwrite, "write", const void *, COMMA off_t offset, COMMA offset)
TRANSFER(pwrite64, "write", const void *, COMMA off64_t offset, COMMA offset)

#define VECTOR(name, call, offset_type)                                               \
    ssize_t name(int descriptor, const struct iovec *vectors, int n, offset_type offset) \
    {                                                                                 \
        REAL(name, ssize_t, int, const struct iovec *, int, offset_type)              \
        if (hits_open(call, descriptor)) {                                            \
            if (error_number)                                                         \
                return -1;                                                            \
            struct iovec part = {vectors[0].iov_base, half(vectors[0].iov_len)};      \
            return real(descriptor, &part, 1, offset);                                \
        }                                                                             \
        return real(descriptor, vectors, n, offset);                                  \
    }

VECTOR(preadv, "read", off_t)
VECTOR(preadv64, "read", off64_t)
VECTOR(pwritev, "write", off_t)
VECTOR(pwritev64, "write", off64_t)

#define COPY(name, offset_type)                                                   \
    ssize_t name(int target, int source, offset_type *offset, size_t n)           \
    {                                                                             \
        REAL(name, ssize_t, int, int, offset_type *, size_t)                      \
        if (hits_open("write", target)) {                                         \
            if (error_number)                                                     \
                return -1;                                                        \
            n = half(n > 4096 ? 4096 : n);                                        \
        }                                                                         \
        return real(target, source, offset, n);                                   \
    }

COPY(sendfile, off_t)
COPY(sendfile64, off64_t)

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...)      \
    {                                               \
        REAL(name, int, const char *, int, ...)     \
        va_list arguments;                          \
        va_start(arguments, flags);                 \
        mode_t mode = mode_of(flags, arguments);    \
        va_end(arguments);                          \
        return hits("open", path) ? -1 : real(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                    \
    int name(int descriptor, const char *path, int flags, ...)          \
    {                                                                   \
        REAL(name, int, int, const char *, int, ...)                    \
        va_list arguments;                                              \
        va_start(arguments, flags);                                     \
        mode_t mode = mode_of(flags, arguments);                        \
        va_end(arguments);                                              \
        return hits_at("open", descriptor, path) ? -1 : real(descriptor, path, flags, mode); \
    }

OPENAT(openat)
OPENAT(openat64)

int close(int descriptor)
{
    REAL(close, int, int)
    if (hits_open("close", descriptor)) {
        real(descriptor); /* Linux closes the descriptor even when it reports an error */
        errno = error_number;
        return -1;
    }
    return real(descriptor);
}

#define FALLOCATE(name, offset_type)                                        \
    int name(int descriptor, offset_type offset, offset_type length)        \
    {                                                                       \
        REAL(name, int, int, offset_type, offset_type)                      \
        return hits_open("fallocate", descriptor) ? error_number : real(descriptor, offset, length); \
    }

FALLOCATE(posix_fallocate, off_t)
FALLOCATE(posix_fallocate64, off64_t)

#define ON_DESCRIPTOR(name, call, types, names)                       \
    int name(int descriptor types)                                    \
    {                                                                 \
        REAL(name, int, int types)                                    \
        return hits_open(call, descriptor) ? -1 : real(descriptor names); \
    }

ON_DESCRIPTOR(ftruncate, "truncate", COMMA off_t length, COMMA length)
ON_DESCRIPTOR(ftruncate64, "truncate", COMMA off64_t length, COMMA length)
ON_DESCRIPTOR(fsync, "fsync", , )
ON_DESCRIPTOR(flock, "flock", COMMA int operation, COMMA operation)

#define ON_PATH(name, call, types, names)                      \
    int name(const char *path types)                           \
    {                                                          \
        REAL(name, int, const char *types)                     \
        return hits(call, path) ? -1 : real(path names);       \
    }

ON_PATH(rename, "rename", COMMA const char *target, COMMA target)
ON_PATH(unlink, "unlink", , )
ON_PATH(rmdir, "unlink", , )
ON_PATH(mkdir, "mkdir", COMMA mode_t mode, COMMA mode)
ON_PATH(stat, "stat", COMMA struct stat *restrict status, COMMA status)
ON_PATH(stat64, "stat", COMMA struct stat64 *restrict status, COMMA status)
ON_PATH(chmod, "chmod", COMMA mode_t mode, COMMA mode)

int renameat2(int folder, const char *path, int target_folder, const char *target, unsigned flags)
{
    REAL(renameat2, int, int, const char *, int, const char *, unsigned)
    return hits_at("rename", folder, path) ? -1 : real(folder, path, target_folder, target, flags);
}

int unlinkat(int descriptor, const char *path, int flags)
{
    REAL(unlinkat, int, int, const char *, int)
    return hits_at("unlink", descriptor, path) ? -1 : real(descriptor, path, flags);
}
