// Stands in for a libnfs of the version that VERSION names: files of the server are files in PLATTER_FAKE_DIR. Reads and
// writes take their arguments in the order of that version, BUFFER_FIRST or not, and a call in the other one ends the
// program. That it was used is written to the file PLATTER_FAKE_TRACE.

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST (64 << 10)
#define CONTEXT UINT64_C(0x6e66736374787421)
#define FILE_MARK UINT64_C(0x6e667366696c6521)

struct nfs;
typedef void (*done)(int result, struct nfs *nfs, void *data, void *given);

// What has been done and not been told yet.
struct told {
	struct told *next;
	done callback;
	void *data, *given;
	int result;
	int owned;
};

struct nfs {
	uint64_t mark;
	int event;
	struct told *first, **last;
};

struct file {
	uint64_t mark;
	int fd;
};

struct stat_64 {
	uint64_t dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, atime, mtime, ctime;
	uint64_t atime_nsec, mtime_nsec, ctime_nsec, used;
};

static void wrong(const char *what)
{
	fprintf(stderr, "libnfs %s: %s\n", VERSION, what);
	abort();
}

static void check(struct nfs *nfs, const struct file *file)
{
	if (nfs->mark != CONTEXT || (file != NULL && file->mark != FILE_MARK))
		wrong("this is no context, or no file");
}

// Tells, when it is served, what came of a request; frees the data then where it is owned.
static int later(struct nfs *nfs, int result, void *data, int owned, done callback, void *given)
{
	struct told *told = malloc(sizeof *told);
	if (told == NULL)
		wrong("no memory");
	*told = (struct told){ NULL, callback, data, given, result, owned };
	*nfs->last = told;
	nfs->last = &told->next;
	eventfd_write(nfs->event, 1);
	return 0;
}

static int plain(struct nfs *nfs, int code, done callback, void *given)
{
	return later(nfs, code < 0 ? -errno : 0, NULL, 0, callback, given);
}

struct nfs *nfs_init_context(void)
{
	const char *trace = getenv("PLATTER_FAKE_TRACE");
	if (trace != NULL) {
		int fd = open(trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
		dprintf(fd, "%s\n", VERSION);
		close(fd);
	}
	struct nfs *nfs = calloc(1, sizeof *nfs);
	nfs->mark = CONTEXT;
	nfs->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	nfs->last = &nfs->first;
	return nfs;
}

int nfs_service(struct nfs *nfs, int ready)
{
	(void)ready;
	eventfd_t count;
	eventfd_read(nfs->event, &count);
	struct told *told = nfs->first;
	nfs->first = NULL;
	nfs->last = &nfs->first;
	while (told != NULL) {
		struct told *next = told->next;
		told->callback(told->result, nfs, told->data, told->given);
		if (told->owned)
			free(told->data);
		free(told);
		told = next;
	}
	return 0;
}

void nfs_destroy_context(struct nfs *nfs)
{
	check(nfs, NULL);
	for (struct told *told = nfs->first; told != NULL; told = told->next)
		told->result = -EINTR, told->owned = 0;
	nfs_service(nfs, 0);
	close(nfs->event);
	free(nfs);
}

const char *nfs_get_error(struct nfs *nfs)
{
	check(nfs, NULL);
	return "an error of what stands in";
}

void *nfs_parse_url_incomplete(struct nfs *nfs, const char *url)
{
	check(nfs, NULL);
	return strdup(url);
}

void nfs_destroy_url(void *url)
{
	free(url);
}

int nfs_set_version(struct nfs *nfs, int version)
{
	check(nfs, NULL);
	return version == 3 || version == 4 ? 0 : -1;
}

void nfs_set_uid(struct nfs *nfs, int uid)
{
	check(nfs, NULL), (void)uid;
}

void nfs_set_gid(struct nfs *nfs, int gid)
{
	check(nfs, NULL), (void)gid;
}

void nfs_set_tcp_syncnt(struct nfs *nfs, int count)
{
	check(nfs, NULL), (void)count;
}

void nfs_set_autoreconnect(struct nfs *nfs, int times)
{
	check(nfs, NULL), (void)times;
}

uint64_t nfs_get_readmax(struct nfs *nfs)
{
	check(nfs, NULL);
	return MOST;
}

uint64_t nfs_get_writemax(struct nfs *nfs)
{
	check(nfs, NULL);
	return MOST;
}

int nfs_get_fd(struct nfs *nfs)
{
	return nfs->event;
}

int nfs_which_events(struct nfs *nfs)
{
	check(nfs, NULL);
	return POLLIN;
}

int nfs_mount_async(struct nfs *nfs, const char *server, const char *directory, done callback, void *given)
{
	check(nfs, NULL), (void)server, (void)directory;
	return later(nfs, 0, NULL, 0, callback, given);
}

static void place_of(const char *name, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s", getenv("PLATTER_FAKE_DIR"), name);
}

static int opened(struct nfs *nfs, const char *name, int flags, int mode, done callback, void *given)
{
	check(nfs, NULL);
	char path[PATH_MAX];
	place_of(name, path);
	int fd = open(path, flags | O_CLOEXEC, (mode_t)mode);
	if (fd < 0)
		return later(nfs, -errno, NULL, 0, callback, given);
	struct file *file = malloc(sizeof *file);
	*file = (struct file){ FILE_MARK, fd };
	return later(nfs, 0, file, 0, callback, given);
}

int nfs_open2_async(struct nfs *nfs, const char *path, int flags, int mode, done callback, void *given)
{
	return opened(nfs, path, flags, mode, callback, given);
}

int nfs_create_async(struct nfs *nfs, const char *path, int flags, int mode, done callback, void *given)
{
	return opened(nfs, path, flags | O_CREAT, mode, callback, given);
}

int nfs_close_async(struct nfs *nfs, struct file *file, done callback, void *given)
{
	check(nfs, file);
	int code = close(file->fd);
	file->mark = 0;
	free(file);
	return plain(nfs, code, callback, given);
}

int nfs_fstat64_async(struct nfs *nfs, struct file *file, done callback, void *given)
{
	check(nfs, file);
	struct stat is;
	if (fstat(file->fd, &is) != 0)
		return later(nfs, -errno, NULL, 0, callback, given);
	struct stat_64 *told = calloc(1, sizeof *told);
	told->dev = is.st_dev;
	told->ino = is.st_ino;
	told->mode = is.st_mode;
	told->size = (uint64_t)is.st_size;
	told->used = (uint64_t)is.st_blocks * 512;
	told->mtime = (uint64_t)is.st_mtime;
	return later(nfs, 0, told, 1, callback, given);
}

int nfs_ftruncate_async(struct nfs *nfs, struct file *file, uint64_t len, done callback, void *given)
{
	check(nfs, file);
	return plain(nfs, ftruncate(file->fd, (off_t)len), callback, given);
}

int nfs_fsync_async(struct nfs *nfs, struct file *file, done callback, void *given)
{
	check(nfs, file);
	if (getenv("PLATTER_FAKE_FULL") != NULL) {
		errno = ENOSPC;
		return plain(nfs, -1, callback, given);
	}
	return plain(nfs, fsync(file->fd), callback, given);
}

int nfs_unlink_async(struct nfs *nfs, const char *name, done callback, void *given)
{
	check(nfs, NULL);
	char path[PATH_MAX];
	place_of(name, path);
	return plain(nfs, unlink(path), callback, given);
}

// What no caller says who has the arguments in this order.
static void check_range(struct nfs *nfs, struct file *file, uint64_t count, uint64_t offset)
{
	check(nfs, file);
	if (count == 0 || count > MOST || offset > UINT64_C(1) << 40)
		wrong("the arguments are in another order");
}

#ifdef BUFFER_FIRST

int nfs_pread_async(struct nfs *nfs, struct file *file, void *to, size_t count, uint64_t offset, done callback,
		    void *given)
{
	check_range(nfs, file, count, offset);
	ssize_t len = pread(file->fd, to, count, (off_t)offset);
	return later(nfs, len < 0 ? -errno : (int)len, NULL, 0, callback, given);
}

int nfs_pwrite_async(struct nfs *nfs, struct file *file, const void *from, size_t count, uint64_t offset,
		     done callback, void *given)
{
	check_range(nfs, file, count, offset);
	ssize_t len = pwrite(file->fd, from, count, (off_t)offset);
	return later(nfs, len < 0 ? -errno : (int)len, NULL, 0, callback, given);
}

#else

int nfs_pread_async(struct nfs *nfs, struct file *file, uint64_t offset, uint64_t count, done callback, void *given)
{
	check_range(nfs, file, count, offset);
	void *data = malloc(count);
	ssize_t len = pread(file->fd, data, count, (off_t)offset);
	return later(nfs, len < 0 ? -errno : (int)len, data, 1, callback, given);
}

int nfs_pwrite_async(struct nfs *nfs, struct file *file, uint64_t offset, uint64_t count, const void *from,
		     done callback, void *given)
{
	check_range(nfs, file, count, offset);
	ssize_t len = pwrite(file->fd, from, count, (off_t)offset);
	return later(nfs, len < 0 ? -errno : (int)len, NULL, 0, callback, given);
}

#endif
