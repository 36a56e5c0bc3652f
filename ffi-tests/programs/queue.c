/* Queues: every kind of request, errors as completions, overflow, the fd, lifetimes, threads. */
#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <sys/uio.h>

#define SIZE ((uint64_t)4 << 20)

static const uint32_t backends[] = {0, PLATTER_QUEUE_THREADS, PLATTER_QUEUE_NO_FD};

static platter_queue *new_queue(const platter_image *image, uint32_t depth, uint32_t flags)
{
    platter_queue *queue;
    OK(platter_queue_new(&queue, image, depth, flags, &err));
    return queue;
}

/* Waits for one completion. */
static platter_completion next(platter_queue *queue)
{
    platter_completion done;
    size_t count;
    OK(platter_queue_reap(&count, queue, &done, 1, 1, -1, 0, &err));
    CHECK_U64(count, 1);
    CHECK_U64(done.reserved[0] | done.reserved[1], 0);
    return done;
}

static void ends_well(platter_queue *queue, void *user_data, uint64_t bytes)
{
    const platter_completion done = next(queue);
    if (done.status != PLATTER_OK) {
        fprintf(stderr, "%s (%d)\n", platter_status_name(done.status), done.os_errno);
        exit(1);
    }
    CHECK(done.user_data == user_data);
    CHECK_U64(done.bytes, bytes);
    CHECK(done.os_errno == 0);
}

static void ends_with(platter_queue *queue, int status)
{
    const platter_completion done = next(queue);
    CHECK_STR(platter_status_name(done.status), platter_status_name(status));
    CHECK(done.bytes == 0 && done.os_errno != 0);
}

static void every_kind(const char *path, const char *format, uint32_t flags)
{
    static unsigned char out[300000], in[300000];
    int tag;
    make_image(path, format, SIZE, NULL);
    platter_image *image = open_image(path, format, PLATTER_OPEN_WRITE);
    platter_queue *queue = new_queue(image, 0, flags);

    fill_pattern(out, sizeof out, 1);
    platter_queue_write(queue, out, sizeof out, 100, &tag, 0);
    ends_well(queue, &tag, sizeof out);
    platter_queue_read(queue, in, sizeof in, 100, &tag, 0);
    ends_well(queue, &tag, sizeof in);
    CHECK(memcmp(in, out, sizeof in) == 0);

    /* Now in place, from several buffers, and durable. */
    fill_pattern(out, sizeof out, 77);
    struct iovec iov[3] = {{out, 1000}, {NULL, 0}, {out + 1000, 2000}};
    platter_queue_writev(queue, iov, 3, 5000, &tag, PLATTER_REQUEST_MORE);
    /* The iovec array has been copied. */
    memset(iov, 0xff, sizeof iov);
    ends_well(queue, &tag, 3000);
    platter_queue_write(queue, out, 3000, 5000, NULL, PLATTER_WRITE_FUA);
    ends_well(queue, NULL, 3000);
    iov[0] = (struct iovec){in, 10};
    iov[1] = (struct iovec){in + 10, 2990};
    platter_queue_readv(queue, iov, 2, 5000, &tag, 0);
    ends_well(queue, &tag, 3000);
    CHECK(memcmp(in, out, 3000) == 0);
    platter_queue_readv(queue, NULL, 0, 0, &tag, 0);
    ends_well(queue, &tag, 0);

    platter_queue_write_zeroes(queue, 5000, 1000, &tag, 0);
    ends_well(queue, &tag, 1000);
    platter_queue_write_zeroes(queue, 1 << 20, 1 << 20, &tag,
                               PLATTER_WRITE_FUA | PLATTER_ZERO_MAY_UNMAP);
    ends_well(queue, &tag, 1 << 20);
    platter_queue_discard(queue, 2 << 20, 1 << 20, &tag, PLATTER_WRITE_FUA);
    ends_well(queue, &tag, 1 << 20);
    platter_queue_flush(queue, &tag, 0);
    ends_well(queue, &tag, 0);
    platter_queue_read(queue, in, 3000, 5000, &tag, 0);
    ends_well(queue, &tag, 3000);
    for (size_t i = 0; i < 1000; i++)
        CHECK(in[i] == 0);
    CHECK(memcmp(in + 1000, out + 1000, 2000) == 0);
    CHECK(platter_queue_outstanding(queue) == 0);
    platter_queue_free(queue);
    OK(platter_image_close(image, 0, &err));

    /* Data that is not in the page cache takes another path. */
    image = open_image(path, format, 0);
    queue = new_queue(image, 8, flags);
    int file = open(path, O_RDONLY);
    CHECK(file >= 0 && fsync(file) == 0 && posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0);
    static unsigned char parts[8][4096];
    for (size_t i = 0; i < 8; i++)
        platter_queue_read(queue, parts[i], sizeof parts[i], 100000 + i * 9000, parts[i],
                           PLATTER_REQUEST_MORE);
    for (size_t i = 0; i < 8; i++) {
        const platter_completion done = next(queue);
        CHECK(done.status == PLATTER_OK && done.bytes == sizeof parts[i]);
    }
    fill_pattern(out, sizeof out, 1);
    for (size_t i = 0; i < 8; i++)
        CHECK(memcmp(parts[i], out + 100000 - 100 + i * 9000, sizeof parts[i]) == 0);
    CHECK(close(file) == 0);
    platter_queue_free(queue);
    OK(platter_image_close(image, 0, &err));
}

static void errors(uint32_t flags)
{
    char byte = 0;
    make_image("e.qcow2", "qcow2", SIZE, NULL);
    platter_image *image = open_image("e.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    platter_queue *queue = new_queue(image, 4, flags);
    platter_queue_read(queue, &byte, 1, SIZE, NULL, 0);
    ends_with(queue, PLATTER_STATUS_INVALID);
    platter_queue_write(queue, &byte, 1, UINT64_MAX, NULL, 0);
    ends_with(queue, PLATTER_STATUS_INVALID);
    platter_queue_write_zeroes(queue, 1, SIZE, NULL, 0);
    ends_with(queue, PLATTER_STATUS_INVALID);
    platter_queue_discard(queue, SIZE - 1, 2, NULL, 0);
    ends_with(queue, PLATTER_STATUS_INVALID);
    platter_queue_read(queue, &byte, 1, 0, NULL, PLATTER_WRITE_FUA);
    ends_with(queue, PLATTER_STATUS_INVALID);
    platter_queue_free(queue);
    OK(platter_image_close(image, 0, &err));

    image = open_image("e.qcow2", "qcow2", 0);
    queue = new_queue(image, 4, flags);
    platter_queue_write(queue, &byte, 1, 0, NULL, 0);
    ends_with(queue, PLATTER_STATUS_READ_ONLY);
    platter_queue_flush(queue, NULL, 0);
    ends_well(queue, NULL, 0);
    platter_queue_free(queue);
    OK(platter_image_close(image, 0, &err));
}

/* Storage whose reads of guest data wait until the gate is opened. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool open;
    int waiting;
};

static int gated_read(void *buf, size_t len, uint64_t offset, void *user_data)
{
    struct gate *gate = user_data;
    memset(buf, (int)(offset & 0xff), len);
    pthread_mutex_lock(&gate->lock);
    gate->waiting++;
    while (!gate->open)
        pthread_cond_wait(&gate->opened, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
    return 0;
}

static int gated_size(uint64_t *size, void *user_data)
{
    (void)user_data;
    *size = SIZE;
    return 0;
}

static void set_gate(struct gate *gate, bool open)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = open;
    pthread_cond_broadcast(&gate->opened);
    pthread_mutex_unlock(&gate->lock);
}

static int waiting_at(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    const int waiting = gate->waiting;
    pthread_mutex_unlock(&gate->lock);
    return waiting;
}

static platter_image *open_gated(struct gate *gate)
{
    const platter_storage_ops ops = {.read = gated_read, .size = gated_size};
    platter_open_options *options;
    platter_image *image;
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->opened, NULL);
    gate->open = true;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_image_open_storage(&image, &ops, "gate", gate, NULL, options, 0, &err));
    platter_open_options_free(options);
    gate->open = false;
    gate->waiting = 0;
    return image;
}

static bool readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, 0) == 1;
}

static void *open_later(void *user_data)
{
    struct gate *gate = user_data;
    usleep(20000);
    set_gate(gate, true);
    return NULL;
}

static void waiting_and_overflow(void)
{
    struct gate gate;
    platter_completion done[8];
    static unsigned char bufs[50][16];
    size_t count = 7;
    int fd;
    platter_image *image = open_gated(&gate);
    platter_queue *queue = new_queue(image, 2, 0);
    OK(platter_queue_fd(&fd, queue, 0, &err));
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK(!readable(fd));
    OK(platter_queue_reap(&count, queue, done, 8, 8, -1, 0, &err));
    CHECK(count == 0);

    /* Far more requests than the depth: two run, the others wait their turn, none is rejected. */
    for (size_t i = 0; i < 50; i++)
        platter_queue_read(queue, bufs[i], sizeof bufs[i], i, bufs[i], 0);
    CHECK_U64(platter_queue_outstanding(queue), 50);
    while (waiting_at(&gate) < 2)
        usleep(1000);
    OK(platter_queue_reap(&count, queue, done, 8, 8, 30, 0, &err));
    CHECK(count == 0 && !readable(fd) && waiting_at(&gate) == 2);
    set_gate(&gate, true);
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    CHECK(poll(&poller, 1, 60000) == 1);
    size_t total = 0;
    while (total < 50) {
        OK(platter_queue_reap(&count, queue, done, 8, 1, -1, 0, &err));
        for (size_t i = 0; i < count; i++) {
            const unsigned char *buf = done[i].user_data;
            CHECK(done[i].status == PLATTER_OK && done[i].bytes == 16);
            CHECK(*buf == (buf - bufs[0]) / 16);
        }
        total += count;
    }
    CHECK_U64(total, 50);
    CHECK_U64(platter_queue_outstanding(queue), 0);

    /* A completion may be left for the next call, for which the fd stays readable. */
    for (size_t i = 0; i < 3; i++)
        platter_queue_read(queue, bufs[i], 16, i, NULL, 0);
    OK(platter_queue_reap(&count, queue, done, 3, 3, -1, 0, &err));
    CHECK(count == 3);
    platter_queue_flush(queue, NULL, 0);
    platter_queue_flush(queue, NULL, 0);
    CHECK(poll(&poller, 1, 60000) == 1);
    OK(platter_queue_reap(&count, queue, done, 1, 1, -1, 0, &err));
    CHECK(count == 1);
    CHECK(poll(&poller, 1, 60000) == 1);
    OK(platter_queue_reap(&count, queue, done, 1, 1, -1, 0, &err));
    CHECK(count == 1);
    OK(platter_queue_reap(&count, queue, NULL, 0, 0, 0, 0, &err));
    CHECK(count == 0 && !readable(fd));

    /* Freeing waits for requests that have started; those that have not are dropped. */
    set_gate(&gate, false);
    gate.waiting = 0;
    for (size_t i = 0; i < 50; i++)
        platter_queue_read(queue, bufs[i], 16, i, NULL, 0);
    while (waiting_at(&gate) == 0)
        usleep(1000);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, open_later, &gate) == 0);
    platter_queue_free(queue);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(gate.waiting <= 2);
    OK(platter_image_close(image, 0, &err));
}

static void fd_of_what_completes_at_once(void)
{
    char byte;
    int fd = 0;
    platter_image *image = open_image("e.qcow2", "qcow2", 0);
    platter_queue *queue = new_queue(image, 1, 0);
    OK(platter_queue_fd(&fd, queue, 0, &err));
    platter_queue_read(queue, &byte, 1, 0, NULL, 0);
    platter_queue_read(queue, &byte, 1, SIZE, NULL, 0);
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    CHECK(poll(&poller, 1, 60000) == 1);
    next(queue);
    CHECK(poll(&poller, 1, 60000) == 1);
    next(queue);
    CHECK(!readable(fd));
    platter_queue_free(queue);
    queue = new_queue(image, 1, PLATTER_QUEUE_NO_FD);
    FAILS(platter_queue_fd(&fd, queue, 0, &err), PLATTER_STATUS_UNSUPPORTED, "without an fd");
    CHECK(fd == -1);
    platter_queue_free(queue);
    OK(platter_image_close(image, 0, &err));
}

static void the_image_may_go_first(void)
{
    char byte = 'x';
    platter_image *image = open_image("e.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    platter_queue *queue = new_queue(image, 1, 0);
    platter_queue_write(queue, &byte, 1, 12345, NULL, 0);
    OK(platter_image_close(image, 0, &err));
    ends_well(queue, NULL, 1);
    byte = 0;
    platter_queue_read(queue, &byte, 1, 12345, NULL, 0);
    ends_well(queue, NULL, 1);
    CHECK(byte == 'x');
    platter_queue_free(queue);
    /* Its locks have been released with it. */
    image = open_image("e.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_image_close(image, 0, &err));
}

struct side {
    const platter_image *image;
    unsigned char byte;
};

static void *one_side(void *user_data)
{
    const struct side *side = user_data;
    unsigned char out[5000], in[5000];
    platter_queue *queue = new_queue(side->image, 4, 0);
    memset(out, side->byte, sizeof out);
    for (uint64_t i = side->byte; i < 100; i += 2) {
        platter_queue_write(queue, out, sizeof out, i * sizeof out, out, 0);
        ends_well(queue, out, sizeof out);
        platter_queue_read(queue, in, sizeof in, i * sizeof in, in, 0);
        ends_well(queue, in, sizeof in);
        CHECK(memcmp(in, out, sizeof in) == 0);
    }
    platter_queue_free(queue);
    return NULL;
}

static void two_threads(void)
{
    make_image("t.qcow2", "qcow2", SIZE, NULL);
    platter_image *image = open_image("t.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    struct side sides[2] = {{image, 0}, {image, 1}};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, one_side, &sides[1]) == 0);
    one_side(&sides[0]);
    CHECK(pthread_join(thread, NULL) == 0);
    OK(platter_image_close(image, 0, &err));
}

int main(void)
{
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        every_kind("k.raw", "raw", backends[i]);
        every_kind("k.qcow2", "qcow2", backends[i]);
        errors(backends[i]);
    }
    waiting_and_overflow();
    fd_of_what_completes_at_once();
    the_image_may_go_first();
    two_threads();
    passed();
    return 0;
}
