// Preloaded into a program, lets one of its calls on pipes, a directory and the files below it fail, or
// one of its requests for much memory.
//
// FAULT_DIR      the directory; calls on other files pass
// FAULT_CALLS    letters of the classes that are counted: r(ead), w(rite), s(ync), a(llocation), l(ock);
//                m(emory), of which at least FAULT_MUCH bytes are wanted: the errno is ENOMEM
// FAULT_NTH      the number of the call that fails; the first is 0
// FAULT_ERRNO    how it fails
// FAULT_FOREVER  set: all later calls of the classes fail, too
// FAULT_MUCH     64 KiB where it is not set
// FAULT_STRUCK   a file that is created when the fault strikes
// FAULT_SYNCS    a file to which the path of each file is added that is synced

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long counted;

static int is_ours(int fd, const char *directory)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 5 && memcmp(path, "pipe:", 5) == 0)
        return 1;
    size_t prefix = strlen(directory);
    return length >= (ssize_t)prefix && memcmp(path, directory, prefix) == 0;
}

/* Counts a call, and tells whether it is one that fails. */
static int strikes_now(void)
{
    long nth = atol(getenv("FAULT_NTH"));
    long now = atomic_fetch_add(&counted, 1);
    if (now != nth && !(now > nth && getenv("FAULT_FOREVER") != NULL))
        return 0;
    int struck = open(getenv("FAULT_STRUCK"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (struck >= 0)
        close(struck);
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}

static int strikes(int fd, char call)
{
    const char *calls = getenv("FAULT_CALLS"), *directory = getenv("FAULT_DIR");
    return calls != NULL && directory != NULL && strchr(calls, call) != NULL &&
           is_ours(fd, directory) && strikes_now();
}

static int strikes_memory(size_t bytes)
{
    const char *much = getenv("FAULT_MUCH"), *calls = getenv("FAULT_CALLS");
    if (bytes < (much != NULL ? strtoul(much, NULL, 10) : 64 << 10))
        return 0;
    return calls != NULL && strchr(calls, 'm') != NULL && strikes_now();
}

/* What the C library allocates for itself, such as the stacks of threads, does not come here. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);

void *malloc(size_t n)
{
    return strikes_memory(n) ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return strikes_memory(count * n) ? NULL : __libc_calloc(count, n);
}

void *realloc(void *old, size_t n)
{
    return strikes_memory(n) ? NULL : __libc_realloc(old, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    return strikes_memory(n) ? NULL : __libc_memalign(align, n);
}

int posix_memalign(void **memory, size_t align, size_t n)
{
    if (strikes_memory(n))
        return ENOMEM;
    *memory = __libc_memalign(align, n);
    return *memory == NULL ? ENOMEM : 0;
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) != 0 && (flags & MAP_STACK) == 0 && strikes_memory(n))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}

#define FAULTY(type, name, call, parameters, arguments)                                            \
    type name parameters;                                                                          \
    type name parameters                                                                           \
    {                                                                                              \
        static type(*real) parameters;                                                     \
        if (real == NULL)                                                                          \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                                             \
        if (strikes(fd, call))                                                                     \
            return -1;                                                                             \
        return real arguments;                                                                     \
    }

FAULTY(ssize_t, read, 'r', (int fd, void *buf, size_t n), (fd, buf, n))
FAULTY(ssize_t, pread, 'r', (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at))
FAULTY(ssize_t, pread64, 'r', (int fd, void *buf, size_t n, off64_t at), (fd, buf, n, at))
FAULTY(ssize_t, preadv, 'r', (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
FAULTY(ssize_t, preadv64, 'r', (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at))
FAULTY(ssize_t, preadv2, 'r', (int fd, const struct iovec *v, int n, off_t at, int f), (fd, v, n, at, f))
FAULTY(ssize_t, preadv64v2, 'r', (int fd, const struct iovec *v, int n, off64_t at, int f),
       (fd, v, n, at, f))
FAULTY(ssize_t, write, 'w', (int fd, const void *buf, size_t n), (fd, buf, n))
FAULTY(ssize_t, pwrite, 'w', (int fd, const void *buf, size_t n, off_t at), (fd, buf, n, at))
FAULTY(ssize_t, pwrite64, 'w', (int fd, const void *buf, size_t n, off64_t at), (fd, buf, n, at))
FAULTY(ssize_t, pwritev, 'w', (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
FAULTY(ssize_t, pwritev64, 'w', (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at))
static void record_sync(int fd)
{
    const char *name = getenv("FAULT_SYNCS");
    if (name == NULL)
        return;
    char link[64], path[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    int list = open(name, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    if (length < 0 || list < 0)
        abort();
    path[length++] = '\n';
    if (write(list, path, (size_t)length) != length)
        abort();
    close(list);
}

// The files of a test need not outlive the machine.
static int synced(int fd)
{
    if (strikes(fd, 's'))
        return -1;
    record_sync(fd);
    return 0;
}

int fsync(int fd)
{
    return synced(fd);
}

int fdatasync(int fd)
{
    return synced(fd);
}

FAULTY(int, fallocate, 'a', (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
FAULTY(int, fallocate64, 'a', (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n))
FAULTY(int, ftruncate, 'a', (int fd, off_t n), (fd, n))
FAULTY(int, ftruncate64, 'a', (int fd, off64_t n), (fd, n))

ssize_t copy_file_range(int from, off64_t *at, int fd, off64_t *to, size_t n, unsigned flags)
{
    if (strikes(fd, 'w'))
        return -1;
    return syscall(SYS_copy_file_range, from, at, fd, to, n, flags);
}

/* Taking and testing a lock, not dropping one. */
static int is_lock(int command, const struct flock *lock)
{
    return command == F_OFD_GETLK || (command == F_OFD_SETLK && lock->l_type != F_UNLCK);
}

static int any_fcntl(const char *name, int fd, int command, void *argument)
{
    int (*real)(int, int, ...);
    *(void **)&real = dlsym(RTLD_NEXT, name);
    if (is_lock(command, argument) && strikes(fd, 'l'))
        return -1;
    return real(fd, command, argument);
}

#define FCNTL(name)                                                                                \
    int name(int fd, int command, ...)                                                             \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, command);                                                                   \
        void *argument = va_arg(rest, void *);                                                     \
        va_end(rest);                                                                              \
        return any_fcntl(#name, fd, command, argument);                                            \
    }

FCNTL(fcntl)
FCNTL(fcntl64)
