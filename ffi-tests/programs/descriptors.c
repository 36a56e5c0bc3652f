/* Descriptors: one file through several of them; and that the library does not use 0 to 2, even while they
 * are closed. */
#include "check.h"

#include <poll.h>

/* Where the program prints its result at the end; 0 to 2 stay closed until then. */
static int output;

static bool closed(int fd)
{
    return fcntl(fd, F_GETFD) == -1 && errno == EBADF;
}

static void standard_streams_are_closed(int line)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (!closed(fd)) {
            dprintf(output, "line %d: descriptor %d is open\n", line, fd);
            exit(1);
        }
    }
}
#define UNTOUCHED() standard_streams_are_closed(__LINE__)

/* Answers with a descriptor of the backing file, which has the lowest free number. */
static int give_low_fd(const platter_implicit_file *file, int *fd, void *user_data)
{
    (void)user_data;
    *fd = open(file->name, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 || *fd > 2)
        return PLATTER_ANSWER_DENY;
    return PLATTER_ANSWER_FD;
}

static int stop(const platter_progress *progress, void *user_data)
{
    (void)progress, (void)user_data;
    standard_streams_are_closed(__LINE__);
    return 0;
}

static void queue_requests(platter_image *image)
{
    static const uint32_t backends[] = {0, PLATTER_QUEUE_THREADS, PLATTER_QUEUE_NO_FD};
    static unsigned char buf[65536];

    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        platter_queue *queue;
        platter_completion completion;
        size_t count = 0;
        int event = 3;
        OK(platter_queue_new(&queue, image, 0, backends[i], &err));
        if (backends[i] != PLATTER_QUEUE_NO_FD)
            OK(platter_queue_fd(&event, queue, 0, &err));
        CHECK(event > 2);
        UNTOUCHED();
        /* The second write is in place, so that a ring can take it, and durable. */
        platter_queue_write(queue, buf, sizeof buf, 1 << 20, NULL, 0);
        platter_queue_flush(queue, NULL, 0);
        for (int left = 2; left > 0; left -= (int)count) {
            OK(platter_queue_reap(&count, queue, &completion, 1, 1, -1, 0, &err));
            CHECK(completion.status == PLATTER_OK);
            UNTOUCHED();
        }
        platter_queue_free(queue);
    }
}

static void make_overlay(const char *path, const char *base)
{
    platter_policy *policy;
    platter_create *create;
    platter_job *job;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_create_new(&create, path, "qcow2", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_set_backing(create, base, "qcow2", 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_policy_free(policy);
}

static int open_fd(platter_image **image, int fd, const char *format, uint32_t flags,
                   platter_error **error)
{
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    const int status = platter_image_open_fd(image, fd, NULL, options, flags, error);
    platter_open_options_free(options);
    return status;
}

static int open_path(platter_image **image, const char *path, const char *format, uint32_t flags,
                     platter_error **error)
{
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    const int status = platter_image_open(image, path, options, flags, error);
    platter_open_options_free(options);
    return status;
}

/* Converts the descriptor `from` sequentially, or the image `source` unless it is NULL, to the descriptor `to`. */
static int converts(int from, const char *source, int to, platter_error **error)
{
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    if (source != NULL) {
        OK(platter_convert_add_source(convert, source, 0, &err));
    } else {
        platter_open_options *options;
        OK(platter_open_options_new(&options, 0, &err));
        OK(platter_open_options_set_format(options, "raw", 0, &err));
        OK(platter_convert_set_source_options(convert, options, 0, &err));
        OK(platter_convert_set_source_fd(convert, from, 0, &err));
        platter_open_options_free(options);
    }
    OK(platter_convert_set_target_fd(convert, to, 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    const int status = platter_job_run(job, 0, error);
    platter_job_free(job);
    platter_convert_free(convert);
    return status;
}

/* One file through two descriptors, a duplicate, or a name: a writer excludes all others, as with two names. */
static void one_file_twice(void)
{
    static unsigned char data[65536], before[65536], after[65536];
    platter_image *a, *b;
    platter_job *job;
    make_image("one.qcow2", "qcow2", 4 << 20, NULL);
    CHECK(link("one.qcow2", "link.qcow2") == 0);
    const int first = open("one.qcow2", O_RDWR | O_CLOEXEC);
    const int again = open("link.qcow2", O_RDWR | O_CLOEXEC);
    const int copy = dup(first);
    const int fds[] = {first, copy, again};
    CHECK(first > 2 && again > 2 && copy > 2);
    for (size_t i = 0; i < 3; i++) {
        OK(open_fd(&a, first, "qcow2", PLATTER_OPEN_WRITE, &err));
        FAILS(open_fd(&b, fds[i], "qcow2", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_LOCKED, "lock");
        CHECK(b == NULL);
        FAILS(open_fd(&b, fds[i], "qcow2", 0, &err), PLATTER_STATUS_LOCKED, "lock");
        OK(open_fd(&b, fds[i], "qcow2", PLATTER_OPEN_FORCE_SHARE, &err));
        OK(platter_image_close(b, 0, &err));
        FAILS(open_path(&b, "link.qcow2", "qcow2", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_LOCKED,
              "lock");
        OK(platter_image_write(a, data, sizeof data, 0, 0, &err));
        OK(platter_image_close(a, 0, &err));
        /* Readers share; closing the first does not release the other's lock. */
        OK(open_fd(&a, first, "qcow2", 0, &err));
        OK(open_fd(&b, fds[i], "qcow2", 0, &err));
        OK(platter_image_close(a, 0, &err));
        FAILS(open_fd(&a, first, "qcow2", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_LOCKED, "lock");
        OK(platter_image_close(b, 0, &err));
        OK(open_path(&a, "one.qcow2", "qcow2", PLATTER_OPEN_WRITE, &err));
        FAILS(open_fd(&b, fds[i], "qcow2", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_LOCKED, "lock");
        OK(platter_image_close(a, 0, &err));
    }
    /* Raw disks as well, although their locks allow other processes to write. */
    const char *already = "in this process already";
    for (size_t i = 0; i < 3; i++) {
        OK(open_fd(&a, first, "raw", PLATTER_OPEN_WRITE, &err));
        FAILS(open_fd(&b, fds[i], "raw", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_LOCKED, already);
        FAILS(open_path(&b, "link.qcow2", "raw", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_LOCKED,
              already);
        FAILS(open_fd(&b, fds[i], "qcow2", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_LOCKED, "lock");
        OK(open_fd(&b, fds[i], "raw", 0, &err));
        OK(platter_image_close(b, 0, &err));
        OK(platter_image_close(a, 0, &err));
        OK(open_path(&a, "one.qcow2", "raw", PLATTER_OPEN_WRITE, &err));
        FAILS(open_fd(&b, fds[i], "raw", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_LOCKED, already);
        OK(platter_image_close(a, 0, &err));
    }
    /* With a different error if one of them denies other writers, whichever comes first. */
    for (size_t i = 0; i < 3; i++)
        for (int late = 0; late < 2; late++) {
            const uint32_t alone = PLATTER_OPEN_WRITE | PLATTER_OPEN_DENY_WRITERS;
            OK(open_fd(&a, first, "raw", late ? PLATTER_OPEN_WRITE : alone, &err));
            FAILS(open_fd(&b, fds[i], "raw", late ? alone : PLATTER_OPEN_WRITE, &err),
                  PLATTER_STATUS_LOCKED, "lock");
            FAILS(open_path(&b, "link.qcow2", "raw", late ? alone : PLATTER_OPEN_WRITE, &err),
                  PLATTER_STATUS_LOCKED, "lock");
            OK(platter_image_close(a, 0, &err));
        }
    /* Parts of one file that do not overlap are separate disks. */
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    const char *parts[] = {"driver=raw,offset=0,size=32768,file.filename=link.qcow2",
                           "driver=raw,offset=32768,size=512,file.filename=one.qcow2",
                           "driver=raw,offset=32256,size=1024,file.filename=one.qcow2"};
    const uint32_t writes = PLATTER_OPEN_WRITE | PLATTER_LOCATION_IMAGE_OPTS;
    OK(platter_image_open(&a, parts[0], options, writes, &err));
    OK(platter_image_open(&b, parts[1], options, writes, &err));
    platter_image *c;
    FAILS(platter_image_open(&c, parts[2], options, writes, &err), PLATTER_STATUS_LOCKED, already);
    OK(platter_image_close(b, 0, &err));
    OK(platter_image_close(a, 0, &err));
    /* With locking off, no locks are taken. */
    OK(open_fd(&a, first, "qcow2", PLATTER_OPEN_WRITE, &err));
    OK(platter_image_open(&b, "driver=qcow2,file.locking=off,file.filename=one.qcow2", options,
                          PLATTER_LOCATION_IMAGE_OPTS, &err));
    OK(platter_image_close(b, 0, &err));
    OK(platter_image_close(a, 0, &err));
    platter_open_options_free(options);

    /* A stream to an open image, or to its own source, changes nothing. */
    CHECK(pread(first, before, sizeof before, 0) == sizeof before);
    OK(open_fd(&a, again, "qcow2", PLATTER_OPEN_WRITE, &err));
    FAILS(converts(-1, "base.raw", first, &err), PLATTER_STATUS_LOCKED, "lock");
    OK(platter_image_close(a, 0, &err));
    FAILS(converts(-1, "one.qcow2", first, &err), PLATTER_STATUS_LOCKED, "lock");
    FAILS(converts(again, NULL, first, &err), PLATTER_STATUS_LOCKED, "lock");
    FAILS(converts(first, NULL, copy, &err), PLATTER_STATUS_LOCKED, "lock");
    CHECK(pread(first, after, sizeof after, 0) == sizeof after);
    CHECK(memcmp(before, after, sizeof before) == 0);

    /* Nor does a commit interfere with an image that has the base open. */
    make_overlay("over.qcow2", "one.qcow2");
    OK(open_fd(&a, first, "qcow2", PLATTER_OPEN_WRITE, &err));
    platter_policy *policy;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_commit_job_new(&job, "over.qcow2", NULL, options, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_LOCKED, "lock");
    platter_job_free(job);
    platter_policy_free(policy);
    platter_open_options_free(options);
    OK(platter_image_close(a, 0, &err));
    close(first);
    close(again);
    close(copy);
}

int main(void)
{
    make_image("base.raw", "raw", 4 << 20, NULL);
    make_image("base.qcow2", "qcow2", 4 << 20, NULL);
    make_overlay("top.qcow2", "base.qcow2");
    one_file_twice();
    int raw = open("base.raw", O_RDWR | O_CLOEXEC);
    output = fcntl(1, F_DUPFD_CLOEXEC, 10);
    int errors = fcntl(2, F_DUPFD_CLOEXEC, 10);
    CHECK(output >= 10 && errors >= 10 && raw > 2);
    for (int fd = 0; fd <= 2; fd++)
        close(fd);

    /* By name, by descriptor, and by a descriptor below 3. */
    platter_image *image = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    UNTOUCHED();
    queue_requests(image);
    OK(platter_image_close(image, 0, &err));
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_image_open_fd(&image, raw, NULL, options, PLATTER_OPEN_WRITE, &err));
    UNTOUCHED();
    OK(platter_image_close(image, 0, &err));
    int low = open("base.raw", O_RDWR | O_CLOEXEC);
    CHECK(low == 0);
    OK(platter_image_open_fd(&image, low, NULL, options, PLATTER_OPEN_WRITE, &err));
    close(low);
    UNTOUCHED();
    OK(platter_image_close(image, 0, &err));

    /* A descriptor supplied by the policy's callback is moved. */
    platter_policy *policy;
    OK(platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, &err));
    OK(platter_policy_set_callback(policy, give_low_fd, NULL, NULL, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_image_open(&image, "top.qcow2", options, 0, &err));
    UNTOUCHED();
    OK(platter_image_close(image, 0, &err));
    platter_policy_free(policy);
    platter_open_options_free(options);

    /* Files that a job creates, its eventfd, and streams. */
    for (int streams = 0; streams <= 1; streams++) {
        platter_convert *convert;
        platter_job *job;
        OK(platter_convert_new(&convert, 0, &err));
        if (streams) {
            int from = open("base.raw", O_RDONLY | O_CLOEXEC);
            int to = open("copy.raw", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            CHECK(from == 0 && to == 1);
            OK(platter_convert_set_source_fd(convert, from, 0, &err));
            OK(platter_convert_set_target_fd(convert, to, 0, &err));
            close(from);
            close(to);
        } else {
            OK(platter_convert_add_source(convert, "base.qcow2", 0, &err));
            OK(platter_convert_set_target(convert, "copy.qcow2", "qcow2", 0, &err));
        }
        OK(platter_convert_job_new(&job, convert, 0, &err));
        OK(platter_job_set_progress(job, stop, NULL, NULL, 0, &err));
        int event;
        OK(platter_job_fd(&event, job, 0, &err));
        CHECK(event > 2);
        OK(platter_job_start(job, 0, &err));
        struct pollfd ended = {event, POLLIN, 0};
        while (poll(&ended, 1, -1) != 1)
            ;
        OK(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err));
        platter_job_free(job);
        platter_convert_free(convert);
        UNTOUCHED();
    }

    CHECK(open("/dev/null", O_RDONLY) == 0);
    CHECK(dup2(output, 1) == 1 && dup2(errors, 2) == 2);
    passed();
    return 0;
}
