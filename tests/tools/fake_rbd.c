// Stands in for librados.so.2 and librbd.so.1: images are files; see faking.h for what goes wrong.

#include "faking.h"

#define SYNC(name)                                                                                                      \
	struct fault fault = called(name);                                                                              \
	delay(fault);                                                                                                   \
	if (is(fault, "error"))                                                                                         \
		return (int)-fault.value

struct image {
	int fd;
	char name[256];
};

struct completion {
	long long code;
	void *given;
	void (*callback)(struct completion *, void *);
};

struct info {
	uint64_t size, object_size, objects;
	int order;
	char prefix[24];
	int64_t parent_pool;
	char parent_name[96];
};

struct snapshot {
	uint64_t id, size;
	const char *name;
};

// librados.

int rados_create(void **cluster, const char *user)
{
	(void)user;
	*cluster = malloc(1);
	return 0;
}

void rados_shutdown(void *cluster)
{
	free(cluster);
}

int rados_conf_read_file(void *cluster, const char *file)
{
	(void)cluster, (void)file;
	return 0;
}

// How long requests are waited for, as it was set.
static struct {
	const char *key;
	char value[16];
} times[] = {
	{ "client_mount_timeout", "30" },
	{ "rados_osd_op_timeout", "30" },
	{ "rados_mon_op_timeout", "30" },
};

static char *time_of(const char *key)
{
	for (size_t i = 0; i < sizeof times / sizeof *times; i++)
		if (strcmp(times[i].key, key) == 0)
			return times[i].value;
	return NULL;
}

int rados_conf_set(void *cluster, const char *key, const char *value)
{
	(void)cluster;
	char *time = time_of(key);
	if (time != NULL)
		snprintf(time, sizeof times[0].value, "%s", value);
	return 0;
}

int rados_conf_get(void *cluster, const char *key, char *to, size_t room)
{
	(void)cluster;
	const char *time = time_of(key);
	snprintf(to, room, "%s", time != NULL ? time : "localhost");
	return 0;
}

int rados_connect(void *cluster)
{
	(void)cluster;
	SYNC("connect");
	return 0;
}

int rados_cluster_fsid(void *cluster, char *to, size_t room)
{
	(void)cluster;
	SYNC("fsid");
	int len = snprintf(to, room, "0b8d4a52-2f0c-4d53-9a0e-0d5f4d2a9e02");
	return (int)said(fault, len);
}

int rados_ioctx_create(void *cluster, const char *pool, void **to)
{
	(void)cluster, (void)pool;
	SYNC("pool");
	*to = malloc(1);
	return 0;
}

void rados_ioctx_destroy(void *pool)
{
	free(pool);
}

void rados_ioctx_set_namespace(void *pool, const char *name)
{
	(void)pool, (void)name;
}

int64_t rados_ioctx_get_id(void *pool)
{
	(void)pool;
	return 1;
}

// librbd.

int rbd_create(void *pool, const char *name, uint64_t size, int *order)
{
	(void)pool;
	SYNC("create");
	char path[PATH_MAX];
	place_of(name, path);
	*order = 22;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int code = ftruncate(fd, (off_t)size) == 0 ? 0 : -errno;
	close(fd);
	return code;
}

int rbd_remove_with_progress(void *pool, const char *name, int (*step)(uint64_t, uint64_t, void *), void *arg)
{
	(void)pool;
	SYNC("remove");
	char path[PATH_MAX];
	place_of(name, path);
	step(1, 1, arg);
	return unlink(path) == 0 ? 0 : -errno;
}

int rbd_namespace_exists(void *pool, const char *name, bool *exists)
{
	(void)pool, (void)name;
	*exists = true;
	return 0;
}

static int opened(const char *name, int flags, void **to)
{
	SYNC("open");
	struct image *image = calloc(1, sizeof *image);
	char path[PATH_MAX];
	place_of(name, path);
	image->fd = open(path, flags | O_CLOEXEC);
	if (image->fd < 0) {
		int code = -errno;
		free(image);
		return code;
	}
	snprintf(image->name, sizeof image->name, "%s", name);
	*to = image;
	return 0;
}

int rbd_open(void *pool, const char *name, void **to, const char *snapshot)
{
	(void)pool, (void)snapshot;
	return opened(name, O_RDWR, to);
}

int rbd_open_read_only(void *pool, const char *name, void **to, const char *snapshot)
{
	(void)pool, (void)snapshot;
	return opened(name, O_RDONLY, to);
}

int rbd_close(struct image *image)
{
	struct fault fault = called("close");
	delay(fault);
	close(image->fd);
	free(image);
	return is(fault, "error") ? (int)-fault.value : 0;
}

static uint64_t size_of(struct image *image)
{
	struct stat stat;
	return fstat(image->fd, &stat) == 0 ? (uint64_t)stat.st_size : 0;
}

int rbd_stat(struct image *image, struct info *info, size_t len)
{
	SYNC("stat");
	struct info own = { .size = size_of(image), .object_size = (uint64_t)said(fault, 4 << 20), .order = 22 };
	memcpy(info, &own, len < sizeof own ? len : sizeof own);
	return 0;
}

int rbd_get_size(struct image *image, uint64_t *size)
{
	SYNC("size");
	*size = (uint64_t)said(fault, (long long)size_of(image));
	return 0;
}

int rbd_get_id(struct image *image, char *to, size_t room)
{
	SYNC("id");
	if (is(fault, "odd"))
		// No end of the text.
		memset(to, 'x', room);
	else
		snprintf(to, room, "%s", image->name);
	return 0;
}

int rbd_get_features(struct image *image, uint64_t *features)
{
	(void)image;
	SYNC("features");
	*features = (uint64_t)said(fault, 1 << 4);
	return 0;
}

int rbd_get_flags(struct image *image, uint64_t *flags)
{
	(void)image;
	*flags = 0;
	return 0;
}

int rbd_resize_with_progress(struct image *image, uint64_t size, int (*step)(uint64_t, uint64_t, void *), void *arg)
{
	SYNC("resize");
	step(1, 1, arg);
	return ftruncate(image->fd, (off_t)size) == 0 ? 0 : -errno;
}

int rbd_snap_create(struct image *image, const char *name)
{
	(void)image, (void)name;
	return -ENOSYS;
}

int rbd_snap_remove(struct image *image, const char *name)
{
	(void)image, (void)name;
	return -ENOSYS;
}

int rbd_snap_rollback_with_progress(struct image *image, const char *name, int (*step)(uint64_t, uint64_t, void *), void *arg)
{
	(void)image, (void)name, (void)step, (void)arg;
	return -ENOSYS;
}

int rbd_snap_list(struct image *image, struct snapshot *to, int *room)
{
	(void)image, (void)to;
	SYNC("snaps");
	if (is(fault, "odd")) {
		// There is never room enough.
		*room = (int)fault.value;
		return -ERANGE;
	}
	return (int)said(fault, 0);
}

void rbd_snap_list_end(struct snapshot *list)
{
	(void)list;
}

int rbd_diff_iterate2(struct image *image, const char *from, uint64_t offset, uint64_t len, uint8_t parents, uint8_t whole,
		      int (*visit)(uint64_t, size_t, int, void *), void *arg)
{
	(void)from, (void)parents, (void)whole;
	SYNC("diff");
	bool odd = is(fault, "odd");
	off_t end = (off_t)(offset + len);
	if (odd && (visit(UINT64_MAX - 1, SIZE_MAX, 0, arg) < 0 || visit(offset + len, 1 << 20, 1, arg) < 0))
		return -ECANCELED;
	for (off_t at = (off_t)offset; at < end;) {
		off_t data = lseek(image->fd, at, SEEK_DATA);
		if (data < 0 || data >= end)
			break;
		off_t hole = lseek(image->fd, data, SEEK_HOLE);
		if (hole > end)
			hole = end;
		if (visit((uint64_t)data, (size_t)(hole - data), 1, arg) < 0)
			return -ECANCELED;
		// Again, and backwards.
		if (odd && (visit((uint64_t)data, 1, 1, arg) < 0 || visit(offset, 0, 1, arg) < 0))
			return -ECANCELED;
		at = hole;
	}
	return 0;
}

int rbd_encryption_format(struct image *image, int format, void *options, size_t len)
{
	(void)image, (void)format, (void)options, (void)len;
	return -ENOTSUP;
}

int rbd_encryption_load(struct image *image, int format, void *options, size_t len)
{
	(void)image, (void)format, (void)options, (void)len;
	return -ENOTSUP;
}

int rbd_aio_create_completion(void *given, void (*callback)(struct completion *, void *), struct completion **to)
{
	*to = malloc(sizeof **to);
	**to = (struct completion){ 0, given, callback };
	return 0;
}

ssize_t rbd_aio_get_return_value(struct completion *completion)
{
	return (ssize_t)completion->code;
}

void rbd_aio_release(struct completion *completion)
{
	free(completion);
}

static void ended(struct request *request, long long done)
{
	struct completion *completion = request->handle;
	completion->code = done < 0 && !is(request->fault, "value") ? -errno : done;
	// Changes give 0.
	if (request->what != 'r' && request->fault.kind[0] == 0)
		completion->code = done < 0 ? completion->code : 0;
	completion->callback(completion, completion->given);
}

static int started(const char *name, char what, struct image *image, struct completion *completion, struct request request)
{
	request.fault = called(name);
	// Refused at once.
	if (is(request.fault, "odd"))
		return (int)-request.fault.value;
	request.what = what;
	request.fd = image->fd;
	request.end = ended;
	request.handle = completion;
	return -begin(request);
}

int rbd_aio_read(struct image *image, uint64_t offset, size_t len, char *to, struct completion *completion)
{
	return started("read", 'r', image, completion, (struct request){ .to = to, .len = len, .offset = (off_t)offset });
}

int rbd_aio_write(struct image *image, uint64_t offset, size_t len, const char *from, struct completion *completion)
{
	const char *writes = getenv("PLATTER_FAKE_WRITES");
	int fd = writes == NULL ? -1 : open(writes, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0) {
		dprintf(fd, "%llu %zu\n", (unsigned long long)offset, len);
		close(fd);
	}
	return started("write", 'w', image, completion, (struct request){ .from = from, .len = len, .offset = (off_t)offset });
}

int rbd_aio_write_zeroes(struct image *image, uint64_t offset, size_t len, struct completion *completion, int flags, int how)
{
	(void)flags, (void)how;
	return started("zeroes", 'z', image, completion, (struct request){ .len = len, .offset = (off_t)offset });
}

int rbd_aio_discard(struct image *image, uint64_t offset, uint64_t len, struct completion *completion)
{
	return started("discard", 'z', image, completion, (struct request){ .len = len, .offset = (off_t)offset });
}

int rbd_aio_flush(struct image *image, struct completion *completion)
{
	return started("flush", 's', image, completion, (struct request){ .len = 0 });
}
