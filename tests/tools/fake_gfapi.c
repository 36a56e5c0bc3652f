// Stands in for libgfapi.so.0: files of a volume are files; see faking.h for what goes wrong.

#include "faking.h"

typedef void (*done)(void *file, ssize_t count, void *before, void *after, void *given);

struct file {
	int fd;
};

// Whether the call fails, with its errno.
static bool fails(struct fault fault)
{
	delay(fault);
	if (!is(fault, "error"))
		return false;
	errno = (int)fault.value;
	return true;
}

void *glfs_new(const char *volume)
{
	(void)volume;
	return malloc(1);
}

int glfs_set_volfile_server(void *volume, const char *transport, const char *host, int port)
{
	(void)volume, (void)transport, (void)host, (void)port;
	return 0;
}

int glfs_set_xlator_option(void *volume, const char *part, const char *key, const char *value)
{
	(void)volume, (void)part, (void)key, (void)value;
	return 0;
}

int glfs_set_logging(void *volume, const char *file, int level)
{
	(void)volume, (void)file, (void)level;
	return 0;
}

int glfs_init(void *volume)
{
	(void)volume;
	return fails(called("init")) ? -1 : 0;
}

int glfs_fini(void *volume)
{
	struct fault fault = called("fini");
	free(volume);
	return fails(fault) ? -1 : 0;
}

static struct file *opened(const char *name, int flags)
{
	if (fails(called("open")))
		return NULL;
	char path[PATH_MAX];
	place_of(name, path);
	int fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		return NULL;
	struct file *file = malloc(sizeof *file);
	file->fd = fd;
	return file;
}

void *glfs_open(void *volume, const char *path, int flags)
{
	(void)volume;
	return opened(path, flags);
}

void *glfs_creat(void *volume, const char *path, int flags, mode_t mode)
{
	(void)volume, (void)mode;
	return opened(path, flags);
}

int glfs_close(struct file *file)
{
	struct fault fault = called("close");
	close(file->fd);
	free(file);
	return fails(fault) ? -1 : 0;
}

int glfs_unlink(void *volume, const char *name)
{
	(void)volume;
	if (fails(called("unlink")))
		return -1;
	char path[PATH_MAX];
	place_of(name, path);
	return unlink(path);
}

int glfs_fstat(struct file *file, struct stat *stat)
{
	struct fault fault = called("fstat");
	if (fails(fault))
		return -1;
	int code = fstat(file->fd, stat);
	stat->st_size = (off_t)said(fault, stat->st_size);
	if (is(fault, "odd")) {
		// A directory, of less than nothing.
		stat->st_mode = S_IFDIR;
		stat->st_blocks = -1;
	}
	return code;
}

off_t glfs_lseek(struct file *file, off_t offset, int what)
{
	struct fault fault = called("seek");
	if (fails(fault))
		return -1;
	// As the library does it: what it tells is where the file is after all.
	off_t found = lseek(file->fd, offset, what);
	if (found >= 0) {
		usleep(200);
		found = lseek(file->fd, 0, SEEK_CUR);
	}
	return is(fault, "value") ? (off_t)fault.value : found;
}

int glfs_fallocate(struct file *file, int mode, off_t offset, size_t len)
{
	(void)mode;
	return fails(called("fallocate")) ? -1 : fallocate(file->fd, 0, offset, (off_t)len);
}

static void ended(struct request *request, long long count)
{
	done callback = (done)request->callback;
	callback(request->handle, (ssize_t)count, NULL, NULL, request->given);
}

static int started(const char *name, char what, struct file *file, done callback, void *given, struct request request)
{
	request.fault = called(name);
	// Refused at once.
	if (is(request.fault, "odd")) {
		errno = (int)request.fault.value;
		return -1;
	}
	request.what = what;
	request.fd = file->fd;
	request.end = ended;
	request.callback = (void *)callback;
	request.given = given;
	request.handle = file;
	errno = begin(request);
	return errno == 0 ? 0 : -1;
}

int glfs_pread_async(struct file *file, void *to, size_t len, off_t offset, int flags, done callback, void *given)
{
	(void)flags;
	return started("read", 'r', file, callback, given, (struct request){ .to = to, .len = len, .offset = offset });
}

int glfs_pwrite_async(struct file *file, const void *from, int len, off_t offset, int flags, done callback, void *given)
{
	(void)flags;
	return started("write", 'w', file, callback, given,
		       (struct request){ .from = from, .len = (size_t)len, .offset = offset });
}

int glfs_ftruncate_async(struct file *file, off_t len, done callback, void *given)
{
	return started("truncate", 't', file, callback, given, (struct request){ .len = (size_t)len });
}

int glfs_fsync_async(struct file *file, done callback, void *given)
{
	return started("sync", 's', file, callback, given, (struct request){ .len = 0 });
}

int glfs_discard_async(struct file *file, off_t offset, size_t len, done callback, void *given)
{
	return started("discard", 'z', file, callback, given, (struct request){ .len = len, .offset = offset });
}

int glfs_zerofill_async(struct file *file, off_t offset, off_t len, done callback, void *given)
{
	return started("zero", 'z', file, callback, given, (struct request){ .len = (size_t)len, .offset = offset });
}
