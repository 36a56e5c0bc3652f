// What stands in for client libraries of servers share: faults by name, and requests that end on a thread of their own.
//
// PLATTER_FAKE_DIR is the directory of the files that stand for images. Each call is written by its name to the file
// PLATTER_FAKE_TRACE, one a line. PLATTER_FAKE_FAULT is "CALL NTH KIND VALUE": the call of that name and number, from 0 on,
// and with "+" before the kind all later ones too, goes wrong:
//   error  it fails with that errno          short  it says that so many bytes fewer were done
//   value  it says that number               long   it says that so many bytes more were done
//   late   it ends so many milliseconds late  odd    it says what is true in an odd way

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct fault {
	char kind[16];
	long long value;
};

static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

// Notes a call, and tells whether it goes wrong.
static struct fault called(const char *name)
{
	struct fault fault = { "", 0 };
	pthread_mutex_lock(&counting);
	const char *trace = getenv("PLATTER_FAKE_TRACE");
	if (trace != NULL) {
		int fd = open(trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
		if (fd >= 0) {
			dprintf(fd, "%s\n", name);
			close(fd);
		}
	}
	const char *asked = getenv("PLATTER_FAKE_FAULT");
	char call[32], kind[16];
	long long nth, value;
	if (asked != NULL && sscanf(asked, "%31s %lld %15s %lld", call, &nth, kind, &value) == 4 &&
	    strcmp(call, name) == 0) {
		static long long count;
		bool lasts = kind[0] == '+';
		if (count == nth || (lasts && count > nth)) {
			strcpy(fault.kind, kind + lasts);
			fault.value = value;
		}
		count++;
	}
	pthread_mutex_unlock(&counting);
	return fault;
}

static bool is(struct fault fault, const char *kind)
{
	return strcmp(fault.kind, kind) == 0;
}

static void delay(struct fault fault)
{
	if (is(fault, "late")) {
		struct timespec time = { (time_t)(fault.value / 1000), (long)(fault.value % 1000) * 1000000 };
		nanosleep(&time, NULL);
	}
}

// What is said of `done` bytes, or of a number.
static long long said(struct fault fault, long long done)
{
	if (is(fault, "value"))
		return fault.value;
	if (done >= 0 && is(fault, "short"))
		return done > fault.value ? done - fault.value : 0;
	if (done >= 0 && is(fault, "long"))
		return done + fault.value;
	return done;
}

// The file that stands for an image.
static void place_of(const char *name, char path[PATH_MAX])
{
	const char *directory = getenv("PLATTER_FAKE_DIR");
	snprintf(path, PATH_MAX, "%s/%s", directory == NULL ? "." : directory, name);
}

// A change or a read of a file.
struct request {
	int fd;
	char what;
	void *to;
	const void *from;
	size_t len;
	off_t offset;
	struct fault fault;
	// Told the bytes that were done, or -1 with an errno.
	void (*end)(struct request *, long long done);
	void *callback, *given, *handle;
};

static int zeroed(int fd, off_t offset, off_t len)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
}

static void *carry_out(void *arg)
{
	struct request *request = arg;
	long long done = 0;
	delay(request->fault);
	if (is(request->fault, "error")) {
		errno = (int)request->fault.value;
		done = -1;
	} else {
		switch (request->what) {
		case 'r':
			done = pread(request->fd, request->to, request->len, request->offset);
			break;
		case 'w':
			done = pwrite(request->fd, request->from, request->len, request->offset);
			break;
		case 'z':
			done = zeroed(request->fd, request->offset, (off_t)request->len);
			break;
		case 't':
			done = ftruncate(request->fd, (off_t)request->len);
			break;
		case 's':
			done = fsync(request->fd);
			break;
		default:
			abort();
		}
		done = said(request->fault, done);
	}
	request->end(request, done);
	free(request);
	return NULL;
}

// Starts a request; 0, or an errno.
static int begin(struct request request)
{
	struct request *own = malloc(sizeof *own);
	if (own == NULL)
		return ENOMEM;
	*own = request;
	pthread_t thread;
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int code = pthread_create(&thread, &attributes, carry_out, own);
	pthread_attr_destroy(&attributes);
	if (code != 0)
		free(own);
	return code;
}
