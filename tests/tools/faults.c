// Preloaded into a program, lets one of its calls on the files below a directory fail.
//
// FAULT_DIR      the directory; calls on other files pass
// FAULT_CALLS    letters of the classes that are counted: r(ead), w(rite), s(ync), a(llocation)
// FAULT_NTH      the number of the call that fails; the first is 0
// FAULT_ERRNO    how it fails
// FAULT_FOREVER  set: all later calls of the classes fail, too
// FAULT_STRUCK   a file that is created when the fault strikes

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long counted;

static int is_ours(int fd, const char *directory)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t prefix = strlen(directory);
    return length > (ssize_t)prefix && memcmp(path, directory, prefix) == 0;
}

static int strikes(int fd, char call)
{
    const char *calls = getenv("FAULT_CALLS"), *directory = getenv("FAULT_DIR");
    if (calls == NULL || directory == NULL || strchr(calls, call) == NULL || !is_ours(fd, directory))
        return 0;
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
FAULTY(ssize_t, write, 'w', (int fd, const void *buf, size_t n), (fd, buf, n))
FAULTY(ssize_t, pwrite, 'w', (int fd, const void *buf, size_t n, off_t at), (fd, buf, n, at))
FAULTY(ssize_t, pwrite64, 'w', (int fd, const void *buf, size_t n, off64_t at), (fd, buf, n, at))
FAULTY(ssize_t, pwritev, 'w', (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
FAULTY(ssize_t, pwritev64, 'w', (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at))
FAULTY(int, fsync, 's', (int fd), (fd))
FAULTY(int, fdatasync, 's', (int fd), (fd))
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
